//! What a hello, an answer and a refusal do: rules 3-5, 8-11 and 17, and first bytes of strangers.

use std::time::Duration;

use super::super::handshake::Introduction;
use super::super::*;
use super::prelude::*;
use super::side::{CREDIT, NORMAL, surroundings};
use super::solo::Solo;
use crate::limits::HELLO;
use crate::wire::{Seq, StreamAck, Versions};

fn two() -> (Introduction, Introduction) {
    let of = |id| Introduction::clone(&surroundings(MemberId::from_parts(id, 1), CREDIT).me);
    (of(1), of(2))
}

fn meant_for(us: &Introduction, them: &Introduction) -> Hello {
    Hello { to: Some(us.member.id), ..them.question() }
}

#[test]
fn r3_a_hello_to_anyone_only_asks_and_is_told_who_is_there() {
    let (us, them) = two();
    let asked = us.judge(&Hello { epoch: Epoch(9), generation: 9, ..them.question() }).unwrap_err();
    assert_eq!((asked.code, asked.from), (Code::WrongMember, Some(us.member.id)));
    assert_eq!(us.judge(&meant_for(&us, &them)), Ok(()));
}

#[test]
fn r3_a_search_finds_who_is_there_and_says_nothing_else() {
    let (us, _) = two();
    let with = surroundings(MemberId::from_parts(2, 2), CREDIT);
    let now = std::time::Instant::now();
    let mut search = Search::new(with, "10.0.0.1:7400".parse::<Endpoint>().unwrap(), now, None, 1);
    let dial = search.poll_dial(now).unwrap();
    let bytes = search.handle_connected(now, dial.link).unwrap();
    let Ok(FirstBytes::Hello(question)) = crate::wire::first::decode(&bytes) else { panic!("no hello") };
    assert_eq!((question.to, question.epoch, question.streams.len()), (None, Epoch::UNKNOWN, 0));
    let refusal = us.judge(&question).unwrap_err();
    let found = search.handle_reply(now, dial.link, FirstBytes::Reject(refusal));
    assert!(matches!(found, Some(Finding::Found(id)) if id == us.member.id));
    assert_eq!((search.poll_dial(now + HELLO), search.poll_timeout()), (None, None), "it is over");
}

#[test]
fn r3_the_old_process_is_not_mistaken_for_the_new_one() {
    let (us, them) = two();
    let old = Hello { to: Some(MemberId::from_parts(77, 7)), ..them.question() };
    let refusal = us.judge(&old).unwrap_err();
    assert_eq!((refusal.code, refusal.from), (Code::WrongMember, Some(us.member.id)));
}

#[test]
fn a_mismatch_is_refused_with_both_names_or_ranges() {
    let (us, them) = two();
    let hello = meant_for(&us, &them);
    let other = Versions { lowest: 7, highest: 9 };
    let refusal = us.judge(&Hello { versions: other, ..hello.clone() }).unwrap_err();
    assert_eq!((refusal.code, refusal.versions), (Code::VersionMismatch, us.versions));
    assert_eq!(refusal.your_versions, Some(other));
    let refusal = us.judge(&Hello { environment: "prod".into(), ..hello.clone() }).unwrap_err();
    assert_eq!(refusal.code, Code::EnvironmentMismatch);
    assert_eq!(refusal.environment.as_deref(), Some("test"));
    assert!(refusal.text.contains("`test`") && refusal.text.contains("`prod`"), "{}", refusal.text);
    let refusal = us.judge(&Hello { network: Some("lan".into()), ..hello.clone() }).unwrap_err();
    assert_eq!(refusal.code, Code::NetworkMismatch);
    assert_eq!(refusal.network.as_deref(), Some("pairs"));
    assert!(refusal.text.contains("`pairs`") && refusal.text.contains("`lan`"), "{}", refusal.text);
    assert_eq!(us.judge(&Hello { network: None, ..hello }), Ok(()), "who does not know it is told");
}

#[test]
fn only_who_is_asked_by_strangers_lets_in_one_that_does_not_know_the_network() {
    let (server, asker) = two();
    let asker = Introduction { network: String::new(), network_open: true, ..asker };
    let hello = meant_for(&server, &asker);
    assert_eq!(hello.network, None, "it leaves the name open");
    assert_eq!(server.judge(&hello), Ok(()));
    let node = Introduction { strangers: false, ..server.clone() };
    let refusal = node.judge(&hello).unwrap_err();
    assert_eq!((refusal.code, refusal.network.as_deref()), (Code::NetworkMismatch, Some("pairs")));
    assert!(refusal.text.contains("only servers"), "{}", refusal.text);
    // The environment is never open.
    let refusal = server.judge(&Hello { environment: "prod".into(), ..hello }).unwrap_err();
    assert_eq!(refusal.code, Code::EnvironmentMismatch);
    // Who knows it is let in by both, as before.
    let knows = Introduction { network: "pairs".into(), network_open: false, ..asker };
    assert_eq!(node.judge(&meant_for(&node, &knows)), Ok(()));
}

#[test]
fn a_mismatch_is_told_and_dialled_ever_more_slowly() {
    let mut solo = Solo::contact();
    for code in [Code::VersionMismatch, Code::EnvironmentMismatch, Code::NetworkMismatch] {
        let (link, _) = solo.dial();
        let reject = solo.reject(code);
        assert!(!solo.reply(link, reject));
        assert!(matches!(solo.events().last(), Some(PeerEvent::Refused { .. })), "{code:?}");
        assert_eq!(solo.dial_within(Duration::from_secs(2)), None);
    }
}

#[test]
fn r4_a_session_that_is_not_here_is_refused_and_nothing_is_bound() {
    let mut solo = Solo::new();
    let refusal = solo.accept(&solo.hello((1, 1), 4, 77)).unwrap_err();
    assert_eq!((refusal.code, refusal.from), (Code::SessionUnknown, Some(solo.with.me.member.id)));
    assert_eq!((solo.peer.session().peer_epoch(), solo.peer.live_link()), (None, None));
    assert!(solo.accept(&solo.hello((1, 1), 2, 0)).is_ok(), "an older epoch than that of the refused one");
}

#[test]
fn r4_who_names_no_epoch_is_bound_to_none() {
    let mut solo = Solo::contact();
    let refusal = solo.accept(&solo.hello((1, 1), 0, 0)).unwrap_err();
    assert_eq!((refusal.code, solo.peer.session().peer_epoch()), (Code::Malformed, None));
    let (link, hello) = solo.dial();
    let none = solo.hello((hello.generation, hello.attempt), 0, hello.epoch.0);
    assert!(!solo.reply(link, FirstBytes::Answer(Box::new(none))));
    assert_eq!(solo.peer.session().peer_epoch(), None, "or it could not be linked ever after");
    solo.link();
}

#[test]
fn r4_a_stale_hello_is_refused_and_the_session_stays() {
    let mut solo = Solo::new();
    let (link, _) = solo.accept(&solo.hello((1, 1), 5, 0)).unwrap();
    let refusal = solo.accept(&solo.hello((9, 9), 4, 0)).unwrap_err();
    assert_eq!(refusal.code, Code::Stale);
    assert!(solo.peer.is_live(link));
    assert_eq!(solo.peer.session().peer_epoch(), Some(Epoch(5)));
}

#[test]
fn r4_a_newer_epoch_ends_the_session_whatever_its_rank() {
    let mut solo = Solo::new();
    let (link, answer) = solo.accept(&solo.hello((9, 9), 5, 0)).unwrap();
    let (next, anew) = solo.accept(&solo.hello((1, 1), 6, 0)).unwrap();
    assert_eq!(solo.closed(), [link]);
    assert!(solo.peer.is_live(next) && anew.epoch > answer.epoch, "epochs of a pair strictly increase");
    assert_eq!(anew.your_epoch, Epoch(6));
    let lost = PeerEvent::SessionLost { peer: solo.peer.id() };
    assert!(solo.events().contains(&lost));
}

#[test]
fn r5_r13_a_low_next_expected_proves_nothing_and_takes_nothing_back() {
    let mut solo = Solo::contact();
    let link = solo.link();
    solo.types(link);
    let receipt = solo.send();
    solo.write();
    let ack = StreamAck { stream: NORMAL, accepted: Seq(1), handled: Seq(1), credit: CREDIT };
    solo.frame(link, Frame::Ack(vec![ack]));
    assert_eq!(receipt.now(), Some(Ok(())));
    let low = solo.expecting(solo.hello((8, 1), 1, 1), NORMAL, 1);
    let (link, _) = solo.accept(&low).unwrap();
    solo.types(link);
    drop(solo.send());
    let batches: Vec<_> = solo.write().into_iter().filter(|frame| matches!(frame, Frame::Batch(_))).collect();
    let [Frame::Batch(batch)] = &batches[..] else { panic!("{batches:?}") };
    assert_eq!(batch.first, Seq(2));
}

#[test]
fn r8_r11_the_generation_follows_what_was_established_and_no_refusal_raises_it() {
    let mut solo = Solo::contact();
    for attempt in 1..4 {
        let (link, hello) = solo.dial();
        assert_eq!((hello.generation, hello.attempt), (1, attempt));
        let duplicate = solo.reject(Code::Duplicate);
        assert!(!solo.reply(link, duplicate));
    }
    let (link, _) = solo.accept(&solo.hello((6, 3), 1, 0)).unwrap();
    solo.peer.handle_link_end(solo.now, link, LinkEnd::End);
    let (_, hello) = solo.dial();
    assert_eq!((hello.generation, hello.attempt), (7, 1), "attempts count within a generation");
}

#[test]
fn r8_a_link_of_an_old_generation_does_not_start_the_attempts_again() {
    let mut solo = Solo::contact();
    let link = solo.link();
    solo.peer.handle_link_end(solo.now, link, LinkEnd::End);
    let (_, first) = solo.dial();
    assert_eq!((first.generation, first.attempt), (2, 1), "whose answer never comes");
    solo.advance(HELLO);
    let (link, _) = solo.accept(&solo.hello((1, 1), 1, 1)).expect("with none live, any");
    solo.peer.handle_link_end(solo.now, link, LinkEnd::End);
    let (_, next) = solo.dial();
    assert!((next.generation, next.attempt) > (first.generation, first.attempt), "{next:?}");
}

#[test]
fn r9_a_live_link_gives_way_only_to_a_higher_rank() {
    let mut solo = Solo::new();
    let (link, _) = solo.accept(&solo.hello((3, 2), 1, 0)).unwrap();
    for lower in [(3, 2), (3, 1), (2, 9), (0, 0)] {
        let refusal = solo.accept(&solo.hello(lower, 1, 0)).unwrap_err();
        assert_eq!((refusal.code, solo.peer.live_link()), (Code::Duplicate, Some(link)), "{lower:?}");
    }
    for higher in [(3, 3), (4, 1)] {
        let (link, _) = solo.accept(&solo.hello(higher, 1, 0)).unwrap();
        assert!(solo.peer.is_live(link), "{higher:?}");
    }
}

#[test]
fn r9_a_pending_dial_gives_way_to_a_higher_member_and_with_none_live_any_is_taken() {
    let mut solo = Solo::contact();
    let (dial, _) = solo.dial();
    assert_eq!(solo.accept(&solo.hello((0, 9), 1, 0)).unwrap_err().code, Code::Duplicate);
    let (link, _) = solo.accept(&solo.hello((1, 1), 1, 0)).unwrap();
    assert_eq!(solo.closed(), [dial], "rule 10");
    let late = FirstBytes::Answer(Box::new(solo.hello((1, 1), 1, 1)));
    assert!(!solo.reply(dial, late), "an answer to a dial that was closed");
    solo.peer.handle_link_end(solo.now, link, LinkEnd::End);
    assert!(solo.accept(&solo.hello((0, 0), 1, 1)).is_ok());
}

#[test]
fn r10_the_answer_is_exact_because_of_the_old_link_nothing_more_is_read() {
    let mut solo = Solo::new();
    let (old, _) = solo.accept(&solo.hello((1, 1), 1, 0)).unwrap();
    solo.types(old);
    let batch = |first| Frame::Batch(super::errors::batch(NORMAL, first, 1));
    solo.frame(old, batch(1));
    let (new, answer) = solo.accept(&solo.hello((2, 1), 1, 1)).unwrap();
    assert_eq!(answer.streams[0].next_expected, Seq(2));
    solo.frame(old, batch(2));
    solo.frame(old, Frame::Goodbye { last: Vec::new(), confirmed: false });
    assert!(solo.peer.is_live(new));
    assert_eq!(solo.peer.session().resume_points()[0].next_expected, Seq(2));
}

#[test]
fn r13_acknowledgements_of_another_link_are_never_applied() {
    let mut solo = Solo::contact();
    let old = solo.link();
    solo.types(old);
    let receipt = solo.send();
    solo.write();
    let (new, _) = solo.accept(&solo.hello((2, 1), 1, 1)).unwrap();
    let ack = StreamAck { stream: NORMAL, accepted: Seq(1), handled: Seq(0), credit: CREDIT };
    solo.frame(old, Frame::Ack(vec![ack]));
    assert_eq!(receipt.now(), None);
    solo.frame(new, Frame::Ack(vec![ack]));
    assert_eq!(receipt.now(), Some(Ok(())));
}

#[test]
fn r13_a_sender_resumes_at_next_expected() {
    let mut solo = Solo::contact();
    let link = solo.link();
    solo.types(link);
    let receipts = [solo.send(), solo.send()];
    solo.write();
    let next = solo.expecting(solo.hello((2, 1), 1, 1), NORMAL, 3);
    let (link, _) = solo.accept(&next).unwrap();
    assert_eq!(receipts.map(|receipt| receipt.now()), [Some(Ok(())); 2], "all before it is acknowledged");
    solo.types(link);
    assert!(!solo.write().iter().any(|frame| matches!(frame, Frame::Batch(_))), "and not sent again");
}

#[test]
fn r13_a_hello_that_claims_what_was_never_sent_is_refused_and_the_session_survives() {
    let mut solo = Solo::contact();
    let link = solo.link();
    solo.types(link);
    let receipt = solo.send();
    solo.write();
    solo.peer.handle_link_end(solo.now, link, LinkEnd::End);
    let lie = solo.expecting(solo.hello((2, 1), 1, 1), NORMAL, 3);
    assert_eq!(solo.accept(&lie).unwrap_err().code, Code::Malformed);
    assert_eq!((receipt.now(), solo.peer.live_link()), (None, None));
    let (link, hello) = solo.dial();
    let lie = solo.expecting(solo.hello((hello.generation, hello.attempt), 1, 1), NORMAL, 99);
    assert!(!solo.reply(link, FirstBytes::Answer(Box::new(lie))), "an answer lies no better");
    let honest = solo.expecting(solo.hello((3, 1), 1, 1), NORMAL, 2);
    assert!(solo.accept(&honest).is_ok());
    assert_eq!(receipt.now(), Some(Ok(())));
}

#[test]
fn r13_a_hello_that_claims_what_was_never_sent_closes_neither_the_live_link_nor_a_pending_dial() {
    let mut solo = Solo::contact();
    let link = solo.link();
    solo.types(link);
    drop(solo.send());
    solo.write();
    for round in 1..5 {
        // A second record was never sent, and who begins anew has received nothing at all.
        for (epoch, claim) in [(1, 3), (2, 2)] {
            let lie = solo.expecting(solo.hello((8, round), epoch, 1), NORMAL, claim);
            assert_eq!(solo.accept(&lie).unwrap_err().code, Code::Malformed, "{epoch}");
            assert!(solo.peer.is_live(link), "the live link has done nothing");
        }
    }
    assert_eq!((solo.closed(), solo.peer.session().peer_epoch()), (vec![], Some(Epoch(1))));
    assert!(!solo.events().iter().any(|event| matches!(event, PeerEvent::Stuck { .. })));
    solo.peer.handle_link_end(solo.now, link, LinkEnd::End);
    let (dial, hello) = solo.dial();
    let lie = solo.expecting(solo.hello((9, 9), 1, 1), NORMAL, 3);
    assert_eq!(solo.accept(&lie).unwrap_err().code, Code::Malformed);
    let answer = solo.hello((hello.generation, hello.attempt), 1, hello.epoch.0);
    assert!(solo.reply(dial, FirstBytes::Answer(Box::new(answer))), "the dial goes on");
}

#[test]
fn r17_an_answer_of_another_session_or_member_is_not_adopted() {
    let mut solo = Solo::contact();
    let link = solo.link();
    solo.peer.handle_link_end(solo.now, link, LinkEnd::End);
    let stranger = MemberId::from_parts(50, 50);
    let bends: [fn(&mut Hello, MemberId); 4] = [
        |answer, _| answer.epoch = Epoch(0),
        |answer, _| answer.your_epoch = Epoch(44),
        |answer, stranger| answer.from.id = stranger,
        |answer, stranger| answer.to = Some(stranger),
    ];
    for bend in bends {
        let (link, hello) = solo.dial();
        let mut answer = solo.hello((hello.generation, hello.attempt), 1, hello.epoch.0);
        bend(&mut answer, stranger);
        assert!(!solo.reply(link, FirstBytes::Answer(Box::new(answer))));
    }
    assert_eq!((solo.peer.session().epoch(), solo.peer.live_link()), (Epoch(1), None));
    solo.link();
}

#[test]
fn numbers_at_their_end_do_no_harm() {
    let mut solo = Solo::contact();
    let huge = Hello { credit: u64::MAX, ..solo.hello((u64::MAX, u64::MAX), u64::MAX, 0) };
    let (link, _) = solo.accept(&huge).unwrap();
    solo.peer.handle_link_end(solo.now, link, LinkEnd::End);
    let (_, hello) = solo.dial();
    assert_eq!(hello.generation, u64::MAX);
}

#[test]
fn an_answer_to_session_unknown_that_never_changes_is_no_storm() {
    let mut solo = Solo::contact();
    let mut dials = 0;
    let start = solo.now;
    while solo.now < start + Duration::from_secs(10) && dials < 1000 {
        let (link, _) = solo.dial();
        let unknown = solo.reject(Code::SessionUnknown);
        solo.reply(link, unknown);
        dials += 1;
    }
    assert!(dials < 20, "{dials} dials in ten seconds");
}
