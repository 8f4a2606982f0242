//! Views over real sockets: who may speak, who is gone, and that nothing is left of them. T4, T15-T17.
#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use common::*;
use karere::{
    Cause, Lost, Member, MemberId, Messenger, PeerEvent, SendError, Timeouts, View, ViewError, ViewId, Views,
};
use tokio::sync::Semaphore;

const fn number(number: u64) -> ViewId {
    ViewId { generation: 1, number }
}

/// A view of these; who has not joined yet joins in it.
fn view_of<'a>(at: u64, members: impl IntoIterator<Item = &'a Messenger>) -> View {
    let joined = |member: Member| Member { joined: member.joined.or(Some(number(at))), ..member };
    View::new(number(at), members.into_iter().map(|messenger| joined(messenger.member())))
}

/// So many members in one view, which is number 1.
async fn cluster(size: usize, timeouts: Timeouts) -> Vec<Messenger> {
    let mut all = Vec::new();
    for _ in 0..size {
        all.push(server(timeouts).await);
    }
    install(1, &all, &all);
    all
}

fn install<'a>(
    at: u64,
    of: impl IntoIterator<Item = &'a Messenger> + Clone,
    by: impl IntoIterator<Item = &'a Messenger>,
) {
    for messenger in by {
        let change = messenger.install_view(view_of(at, of.clone())).unwrap();
        assert!(change.gone.is_empty(), "{change:?}");
    }
}

/// What a messenger received of what is for members only.
fn internals(messenger: &Messenger) -> Arc<parking_lot::Mutex<Vec<(MemberId, u64)>>> {
    let got = Arc::<parking_lot::Mutex<Vec<_>>>::default();
    let to = Arc::clone(&got);
    messenger
        .add_handler(move |from, Internal(number)| {
            to.lock().push((from, number));
            async {}
        })
        .unwrap();
    got
}

#[tokio::test]
async fn members_of_a_view_reach_each_other_without_contacts() {
    let all = cluster(3, patient()).await;
    let got: Vec<_> = all.iter().map(internals).collect();
    for (at, messenger) in all.iter().enumerate() {
        let view = messenger.view().unwrap();
        let report = messenger.send(&Internal(at as u64), view.others(messenger.id())).unwrap();
        assert_eq!((report.queued, report.is_complete()), (2, true));
    }
    for got in &got {
        eventually(LONG, || got.lock().len() == 2).await;
    }
    for messenger in &all {
        eventually(LONG, || messenger.stats().total().pending == 0).await;
        assert_eq!(messenger.stats().peers.len(), 2, "one session a pair");
    }
}

#[tokio::test]
async fn an_older_or_equal_view_is_ignored_and_a_view_without_me_says_that_i_was_expelled() {
    let all = cluster(2, patient()).await;
    let alone = || view_of(1, &all[1..]);
    let same = ViewError::NotNewer { installed: number(1), given: number(1) };
    assert_eq!(all[0].install_view(alone()).unwrap_err(), same);
    assert_eq!(all[0].view().unwrap().members().len(), 2, "nothing has changed");
    let error = all[0].install_view(view_of(2, &all[1..])).unwrap_err();
    assert_eq!(error, ViewError::Expelled { view: number(2) });
    assert_eq!(all[0].view(), None);
    let report = all[0].send(&Internal(1), [all[1].id()]).unwrap();
    assert_eq!(report.absent, [all[1].id()]);
}

#[tokio::test]
async fn messages_before_the_join_is_complete_are_held_and_then_replayed_in_order() {
    let (early, late) = (server(patient()).await, server(patient()).await);
    let (got, open) = (internals(&late), Collected::by(&late));
    drop(early.install_view(view_of(2, [&early, &late])).unwrap());
    let receipts: Vec<_> =
        (0..100).map(|number| early.send_with_receipt(&Internal(number), late.id()).unwrap()).collect();
    early.send_with_receipt(&Number(0), late.id()).unwrap().handled().await.unwrap();
    open.are_exactly(1, LONG).await;
    eventually(LONG, || peer(&late, early.id()).is_some_and(|peer| peer.quarantined_bytes > 100 * 12)).await;
    assert!(receipts.iter().all(|receipt| receipt.now().is_none()), "nothing of it is acknowledged");
    assert!(got.lock().is_empty());
    drop(late.install_view(view_of(2, [&early, &late])).unwrap());
    for receipt in &receipts {
        within(LONG, receipt.handled()).await.unwrap();
    }
    let numbers: Vec<_> = got.lock().iter().map(|(_, number)| *number).collect();
    assert_eq!(numbers, (0..100).collect::<Vec<_>>());
    assert_eq!(early.stats().total().resent, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_waiters_wake_and_every_receipt_ends_when_the_view_removes_the_member() {
    let all = cluster(2, patient()).await;
    let hung = Arc::new(Semaphore::new(0));
    let hold = Arc::clone(&hung);
    all[1]
        .add_handler(move |_, Word(_)| {
            let hold = Arc::clone(&hold);
            async move { drop(hold.acquire().await) }
        })
        .unwrap();
    let (sender, to) = (all[0].clone(), all[1].id());
    let word = Word("x".repeat(30_000));
    let mut receipts = Vec::new();
    loop {
        match sender.send_with_receipt(&word, to) {
            Ok(receipt) => receipts.push(receipt),
            // Full with a link, and nothing more is acknowledged: its handler hangs.
            Err(SendError::Full(_)) if is_connected(&sender, to) && receipts.len() > 60 => break,
            Err(SendError::Full(_)) => tokio::time::sleep(ms(1)).await,
            Err(error) => panic!("{error}"),
        }
    }
    let begun = Arc::new(AtomicU64::new(0));
    let waiting: Vec<_> = (0..10)
        .map(|_| {
            let (sender, word, begun) = (sender.clone(), word.clone(), Arc::clone(&begun));
            tokio::spawn(async move {
                begun.fetch_add(1, Ordering::SeqCst);
                sender.send_wait(&word, [to], secs(60)).await.unwrap()
            })
        })
        .collect();
    eventually(LONG, || begun.load(Ordering::SeqCst) == 10).await;
    let start = Instant::now();
    let change = sender.install_view(view_of(2, &all[..1])).unwrap();
    assert_eq!(change.left, [to]);
    let after = sender.send(&word, [to]).unwrap();
    assert_eq!(after.absent, [to], "nothing is taken from then on");
    for waiter in waiting {
        let report = within(secs(1), waiter).await.unwrap();
        // Some may have found room before; nobody is left waiting.
        assert!(report.absent == [to] || report.queued == 1, "{report:?}");
    }
    for receipt in &receipts {
        match within(secs(1), receipt.acked()).await {
            Ok(()) | Err(Lost::NotSent(Cause::Departed) | Lost::Indeterminate(Cause::Departed)) => {}
            Err(other) => panic!("{other}"),
        }
    }
    eventually(secs(1), || sender.stats().peers.is_empty()).await;
    let took = start.elapsed();
    println!("waiters woken, receipts resolved, peer forgotten after {took:?}");
    assert!(took < secs(1), "{took:?}");
    assert!(sender.stats().total().balance() && sender.stats().total().pending == 0);
    hung.add_permits(Semaphore::MAX_PERMITS);
}

#[tokio::test]
async fn a_removed_member_that_keeps_talking_is_told_directly() {
    let all = cluster(2, quick()).await;
    let got = internals(&all[0]);
    all[1].send_with_receipt(&Internal(1), all[0].id()).unwrap().handled().await.unwrap();
    let seen = Seen::by(&all[1]);
    drop(all[0].install_view(view_of(2, &all[..1])).unwrap());
    let removed = PeerEvent::Expelled { by: all[0].id() };
    eventually(LONG, || seen.has(&removed)).await;
    let report = all[1].send(&Internal(2), [all[0].id()]).unwrap();
    assert_eq!(report.absent, [all[0].id()], "never again under this id");
    assert_eq!(got.lock().len(), 1);
}

#[tokio::test]
async fn one_who_was_expelled_does_not_tell_the_others_that_they_were() {
    let all = cluster(2, quick()).await;
    let _got: Vec<_> = all.iter().map(internals).collect();
    all[0].send_with_receipt(&Internal(1), all[1].id()).unwrap().handled().await.unwrap();
    let seen = Seen::by(&all[1]);
    assert!(matches!(all[0].install_view(view_of(2, &all[1..])), Err(ViewError::Expelled { .. })));
    eventually(LONG, || seen.count(|event| matches!(event, PeerEvent::Disconnected { .. })) > 0).await;
    let waiting = all[1].send_with_receipt(&Internal(2), all[0].id()).unwrap();
    eventually(LONG, || all[0].stats().refused_connections > 0).await;
    assert_eq!(waiting.now(), None, "the view decides");
    drop(all[1].install_view(view_of(2, &all[1..])).unwrap());
    assert!(matches!(within(LONG, waiting.acked()).await, Err(Lost::NotSent(Cause::Departed))));
    assert_eq!(seen.count(|event| matches!(event, PeerEvent::Expelled { .. })), 0, "{:?}", seen.all());
}

#[tokio::test]
async fn a_removed_member_that_missed_it_is_told_when_it_dials() {
    let all = cluster(2, quick()).await;
    // They have no link yet, so nothing could be said.
    drop(all[0].install_view(view_of(2, &all[..1])).unwrap());
    let seen = Seen::by(&all[1]);
    let receipt = all[1].send_with_receipt(&Internal(2), all[0].id()).unwrap();
    assert_eq!(within(LONG, receipt.acked()).await, Err(Lost::NotSent(Cause::Departed)));
    eventually(LONG, || seen.has(&PeerEvent::Expelled { by: all[0].id() })).await;
}

#[tokio::test]
async fn what_was_accepted_of_a_removed_member_is_still_handled() {
    let all = cluster(2, quick()).await;
    let gate = Arc::new(Semaphore::new(0));
    let done = Arc::new(AtomicU64::new(0));
    let (hold, count) = (Arc::clone(&gate), Arc::clone(&done));
    all[0]
        .add_handler(move |_, Internal(_)| {
            let (hold, count) = (Arc::clone(&hold), Arc::clone(&count));
            async move {
                hold.acquire().await.unwrap().forget();
                count.fetch_add(1, Ordering::SeqCst);
            }
        })
        .unwrap();
    let receipts: Vec<_> =
        (0..50).map(|number| all[1].send_with_receipt(&Internal(number), all[0].id()).unwrap()).collect();
    for receipt in &receipts {
        within(LONG, receipt.acked()).await.unwrap();
    }
    drop(all[0].install_view(view_of(2, &all[..1])).unwrap());
    eventually(LONG, || all[0].stats().peers.is_empty()).await;
    gate.add_permits(1000);
    eventually(LONG, || done.load(Ordering::SeqCst) == 50).await;
}

#[tokio::test]
async fn an_expelled_member_comes_back_as_another_with_its_handlers_and_contacts() {
    let all = cluster(2, quick()).await;
    let got = internals(&all[1]);
    let old = all[1].id();
    let contact = contact(&all[1], &all[0]).await;
    let seen = Seen::by(&all[1]);
    drop(all[0].install_view(view_of(2, &all[..1])).unwrap());
    eventually(LONG, || seen.has(&PeerEvent::Expelled { by: all[0].id() })).await;
    assert!(matches!(all[1].install_view(view_of(2, &all[..1])), Err(ViewError::Expelled { .. })));
    let new = all[1].reincarnate().unwrap();
    assert_ne!(new.id, old);
    assert_eq!((new.joined, new.endpoints), (None, all[1].member().endpoints));
    assert_eq!(all[1].id(), new.id);
    install(3, &all, &all);
    all[0].send_with_receipt(&Internal(7), new.id).unwrap().handled().await.unwrap();
    assert_eq!(*got.lock(), [(all[0].id(), 7)]);
    assert_eq!(all[0].send(&Internal(8), [old]).unwrap().absent, [old]);
    assert_eq!(
        seen.count(|event| matches!(event, PeerEvent::Left { .. })),
        1,
        "of the session that was removed"
    );
    // The contact is held by the new member now.
    eventually(LONG, || contact.id() == all[0].id() && is_connected(&all[1], contact.id())).await;
}

#[tokio::test]
async fn a_process_restarted_on_the_same_address_is_another_member_and_evidence() {
    let all = cluster(2, quick()).await;
    let got = internals(&all[0]);
    all[1].send_with_receipt(&Internal(1), all[0].id()).unwrap().handled().await.unwrap();
    let (old, address) = (all[1].id(), address(&all[1]));
    let seen = Seen::by(&all[0]);
    all[1].close().await;
    let again = Messenger::builder().bind(address.to_string()).timeouts(quick()).start().await.unwrap();
    let unread = internals(&again);
    let waiting = all[0].send_with_receipt(&Internal(2), old).unwrap();
    let contact = again.contact(common::address(&all[0]).to_string()).await.unwrap();
    eventually(LONG, || seen.has(&PeerEvent::Replaced { old, new: again.id() })).await;
    assert_eq!(waiting.now(), None, "it waits for the view");
    let two = [&all[0], &again];
    install(2, two, two);
    assert_eq!(within(LONG, waiting.acked()).await, Err(Lost::NotSent(Cause::Departed)));
    again.send_with_receipt(&Internal(3), contact.id()).unwrap().handled().await.unwrap();
    all[0].send_with_receipt(&Internal(4), again.id()).unwrap().handled().await.unwrap();
    assert_eq!(*got.lock(), [(old, 1), (again.id(), 3)]);
    assert_eq!(*unread.lock(), [(all[0].id(), 4)], "nothing that was meant for the old one");
}

#[tokio::test]
async fn a_member_that_leaves_is_gone_without_suspicion() {
    let all = cluster(3, quick()).await;
    let got = internals(&all[0]);
    let seen = Seen::by(&all[0]);
    for number in 0..100 {
        assert!(all[2].send(&Internal(number), [all[0].id()]).unwrap().is_complete());
    }
    all[2].leave(LONG).await;
    eventually(LONG, || got.lock().len() == 100).await;
    let left = PeerEvent::Left { peer: all[2].id() };
    eventually(LONG, || seen.has(&left)).await;
    let others = |event: &PeerEvent| !matches!(event, PeerEvent::Connected { .. } | PeerEvent::Left { .. });
    assert_eq!(seen.count(others), 0, "{:?}", seen.all());
    // The view still holds it; nothing is sent there, and the next view finds nothing to remove.
    assert_eq!(all[0].send(&Internal(1), [all[2].id()]).unwrap().absent, [all[2].id()]);
    assert!(all[0].stats().peers.is_empty());
    assert_eq!(all[0].install_view(view_of(2, &all[..2])).unwrap().left, [all[2].id()]);
}

#[tokio::test]
async fn a_contact_whose_member_a_view_removes_finds_who_comes_to_its_address() {
    let all = cluster(2, quick()).await;
    let contact = contact(&all[0], &all[1]).await;
    let (old, address) = (all[1].id(), address(&all[1]));
    drop(all[0].install_view(view_of(2, &all[..1])).unwrap());
    eventually(LONG, || all[0].stats().peers.is_empty()).await;
    all[1].close().await;
    let again = Messenger::builder().bind(address.to_string()).timeouts(quick()).start().await.unwrap();
    let got = Collected::by(&again);
    assert_eq!(within(LONG, contact.replaced()).await, again.id());
    assert_ne!(again.id(), old);
    eventually(LONG, || is_connected(&all[0], contact.id())).await;
    send_all(&all[0], contact.id(), 0..10).await;
    got.are_exactly(10, LONG).await;
}

#[tokio::test]
async fn gossip_views_compare_no_numbers() {
    let start = || Messenger::builder().bind("127.0.0.1:0").views(Views::Local).timeouts(quick()).start();
    let (one, two) = (start().await.unwrap(), start().await.unwrap());
    let got = internals(&two);
    drop(one.install_view(view_of(700, [&one, &two])).unwrap());
    let receipt = one.send_with_receipt(&Internal(1), two.id()).unwrap();
    // Its own first view is far behind, and holds only itself: held, not removed.
    drop(two.install_view(view_of(1, [&two])).unwrap());
    eventually(LONG, || peer(&two, one.id()).is_some_and(|peer| peer.quarantined_bytes > 0)).await;
    drop(two.install_view(view_of(2, [&one, &two])).unwrap());
    within(LONG, receipt.handled()).await.unwrap();
    assert_eq!(got.lock().len(), 1);
}

#[tokio::test]
async fn a_messenger_without_views_installs_none_and_offers_only_what_is_open() {
    let server = Messenger::builder().bind("127.0.0.1:0").views(Views::None).start().await.unwrap();
    let _got = internals(&server);
    assert_eq!(server.install_view(view_of(1, [&server])).unwrap_err(), ViewError::NoViews);
    let client = server_member(&server).await;
    let receipt = client.send_with_receipt(&Internal(1), server.id()).unwrap();
    assert_eq!(within(LONG, receipt.acked()).await, Err(Lost::NotSent(Cause::NotUnderstood)));
}

/// A member of a view that wrongly holds the server.
async fn server_member(server: &Messenger) -> Messenger {
    let client = common::server(quick()).await;
    drop(client.install_view(view_of(1, [&client, server])).unwrap());
    client
}

/// Behaviour 24: JGroups lost credit entries when a member left; senders then waited for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_view_changes_under_load_lose_no_credit_and_starve_nobody() {
    let all = cluster(3, patient()).await;
    let got: Vec<_> = all.iter().map(internals).collect();
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let mut senders = Vec::new();
    for (from, to) in [(0, 1), (1, 2), (2, 0)] {
        let (messenger, to, stop) = (all[from].clone(), all[to].id(), Arc::clone(&stop));
        senders.push(tokio::spawn(async move {
            let mut sent = 0;
            while !stop.load(Ordering::SeqCst) {
                let report = messenger.send_wait(&Internal(sent), [to], LONG).await.unwrap();
                assert!(report.is_complete(), "a sender starves: {report:?}");
                sent += 1;
            }
            sent
        }));
    }
    for round in 0..100 {
        let guest = server(patient()).await;
        let _guests = internals(&guest);
        let four: Vec<_> = all.iter().chain([&guest]).collect();
        install(2 + 2 * round, four.iter().copied(), four.iter().copied());
        for (at, messenger) in all.iter().enumerate() {
            let report = messenger.send(&Internal(at as u64), [guest.id()]).unwrap();
            assert_eq!(report.queued, 1);
        }
        // It goes without a word, with whatever is under way.
        install(3 + 2 * round, &all, &all);
        guest.close().await;
    }
    stop.store(true, Ordering::SeqCst);
    for (at, sender) in senders.into_iter().enumerate() {
        let sent = within(LONG, sender).await.unwrap();
        let (from, to) = (all[at].id(), (at + 1) % 3);
        eventually(LONG, || got[to].lock().iter().filter(|(of, _)| *of == from).count() as u64 >= sent).await;
        let numbers: Vec<_> =
            got[to].lock().iter().filter(|(of, _)| *of == from).map(|(_, number)| *number).collect();
        assert_eq!(numbers, (0..sent).collect::<Vec<_>>(), "once each, in order");
        assert!(sent > 1000, "{sent}");
    }
    for messenger in &all {
        eventually(LONG, || messenger.stats().peers.len() == 2).await;
        assert!(messenger.stats().total().balance());
    }
}

#[tokio::test]
async fn preconnection_dials_before_anything_is_sent() {
    let all = cluster(3, patient()).await;
    let view = all[0].view().unwrap();
    assert!(all[0].stats().peers.is_empty());
    all[0].preconnect(view.others(all[0].id()));
    eventually(LONG, || view.others(all[0].id()).all(|id| is_connected(&all[0], id))).await;
}
