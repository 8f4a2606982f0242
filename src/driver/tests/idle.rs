//! Idle links over sockets, and the bound on links.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_link_of_members_closes_and_comes_back_for_a_message() {
    let times = Timeouts { idle: Duration::from_millis(1500), ..quick() };
    let [one, two] = [(); 2].map(|()| process([127, 0, 0, 1], times, Limits::default(), Resolver::system()));
    let (there, back) = (one.join(&two), two.join(&one));
    for round in 1..3 {
        let (from, to) = if round == 1 { (&one, &two) } else { (&two, &one) };
        from.send(to.id());
        eventually("acknowledged", || one.acked() + two.acked() == round).await;
        assert!(from.is_linked(to.id()));
        eventually("closed on both sides", || one.links() + two.links() == 0).await;
        assert_eq!((there.peer.lock().links().0, back.peer.lock().links().0), (round, round));
    }
    let ended = [&there, &back].map(|handle| handle.peer.lock().has_ended());
    assert_eq!(ended, [false; 2], "the sessions stay");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn above_the_bound_the_most_idle_links_go_and_those_of_contacts_stay() {
    let limits = Limits { links: 4, ..Limits::default() };
    let hub = process([127, 0, 0, 1], quick(), limits, Resolver::system());
    let friends: Vec<_> = (0..2).map(|_| plain()).collect();
    for friend in &friends {
        let held = friend.driver.hold(hub.id(), hub.endpoint().into());
        assert!(held.is_some());
        eventually("a contact's link", || hub.is_linked(friend.id())).await;
    }
    let members: Vec<_> = (0..8).map(|_| plain()).collect();
    let mut sent = 0;
    for member in &members {
        let handles = (hub.join(member), member.join(&hub));
        hub.send(member.id());
        sent += 1;
        eventually("acknowledged", || hub.acked() == sent).await;
        drop(handles);
    }
    eventually("no more than the bound", || hub.links() == 4).await;
    assert!(friends.iter().all(|friend| hub.is_linked(friend.id())), "contacts stay");
    assert!(members[6..].iter().all(|member| hub.is_linked(member.id())), "the latest stay");
    // Whoever lost its link is written to as before, and another makes room.
    hub.send(members[0].id());
    members[1].send(hub.id());
    eventually("acknowledged", || hub.acked() == sent + 1 && members[1].acked() == 1).await;
    eventually("no more than the bound", || hub.links() == 4).await;
    assert!(friends.iter().all(|friend| hub.is_linked(friend.id())), "contacts stay");
    assert!(members[..2].iter().all(|member| hub.is_linked(member.id())), "the latest stay");
    let stay = hub.driver.peers().len();
    assert_eq!(stay, friends.len() + members.len(), "no session ended");
}
