//! One run has one name: who comes with another is refused, and does no harm. Frames without checksums, as under TLS.

use super::super::*;
use super::prelude::*;
use super::side::intake;
use super::solo::Solo;

fn named(hello: Hello, name: &str) -> Hello {
    let from = crate::member::Member { name: name.to_owned(), ..hello.from.clone() };
    Hello { from, ..hello }
}

#[test]
fn a_resumed_session_must_show_the_name_it_had_and_another_is_refused_untouched() {
    let mut solo = Solo::new();
    let (link, answer) = solo.accept(&named(solo.hello((1, 1), 5, 0), "alpha")).unwrap();
    let ours = answer.epoch.0;
    // A higher rank would replace the link, a newer epoch would end the session: neither is believed.
    for (rank, epoch) in [((9, 9), 5), ((9, 9), 6)] {
        let refusal = solo.accept(&named(solo.hello(rank, epoch, ours), "beta")).unwrap_err();
        assert_eq!(refusal.code, Code::Identity);
        assert!(refusal.text.contains("`alpha`") && refusal.text.contains("`beta`"), "{}", refusal.text);
        assert!(solo.peer.is_live(link) && solo.closed().is_empty());
        assert_eq!(solo.peer.session().peer_epoch(), Some(Epoch(5)));
    }
    solo.peer.handle_link_end(solo.now, link, LinkEnd::End);
    let refusal = solo.accept(&named(solo.hello((2, 1), 5, ours), "beta")).unwrap_err();
    assert_eq!(refusal.code, Code::Identity, "also with no link up");
    let (_, answer) = solo.accept(&named(solo.hello((2, 1), 5, ours), "alpha")).unwrap();
    assert_eq!(answer.epoch.0, ours, "the session is the one of before");
}

#[test]
fn an_answer_with_another_name_is_not_adopted_and_is_told() {
    let mut solo = Solo::contact();
    let first = solo.link();
    solo.peer.handle_link_end(solo.now, first, LinkEnd::End);
    let (link, hello) = solo.dial();
    let answer = solo.hello((hello.generation, hello.attempt), 1, hello.epoch.0);
    assert!(!solo.reply(link, FirstBytes::Answer(Box::new(named(answer, "beta")))));
    assert_eq!(solo.peer.live_link(), None);
    assert!(matches!(solo.events().last(), Some(PeerEvent::Refused { why, .. }) if why.contains("`beta`")));
}

#[test]
fn a_dial_that_is_refused_for_good_is_told_and_goes_on_ever_more_slowly() {
    let mut solo = Solo::contact();
    let (link, _) = solo.dial();
    solo.peer.handle_dial_refused(solo.now, link, "the certificate is for another".to_owned());
    solo.take_outputs();
    assert!(matches!(solo.events().last(), Some(PeerEvent::Refused { why, .. }) if why.contains("another")));
    assert_eq!(solo.dial_within(Duration::from_secs(2)), None);
    assert!(solo.dial_within(Duration::from_secs(10)).is_some(), "somebody may mend it");
}

#[test]
fn a_contact_is_refused_at_once_by_a_certificate_that_does_not_fit() {
    let solo = Solo::contact();
    let now = solo.now;
    let place: Endpoint = "10.0.0.1:7400".parse().unwrap();
    let mut search = Search::new(solo.with.clone(), place, now, None, 1);
    let dial = search.poll_dial(now).unwrap();
    search.handle_connected(now, dial.link).unwrap();
    let reject = Reject { text: "not `alpha`".to_owned(), ..*reject(&solo) };
    let found = search.handle_reply(now, dial.link, FirstBytes::Reject(Box::new(reject)));
    assert!(matches!(found, Some(Finding::Refused(why)) if why == "not `alpha`"));
}

fn reject(solo: &Solo) -> Box<Reject> {
    match solo.reject(Code::Identity) {
        FirstBytes::Reject(reject) => reject,
        other => panic!("{other:?}"),
    }
}

#[test]
fn under_tls_nothing_that_is_written_carries_a_checksum_of_a_body() {
    let plain = Solo::new();
    let mut with = plain.with.clone();
    with.config.body_check = BodyCheck::Absent;
    let types = Arc::new(vec![super::side::fallback()]);
    let mut peer = Peer::new(with, plain.peer.id(), intake(), types, 5);
    peer.handle_hello(plain.now, crate::link::LinkId(1), &plain.hello((1, 1), 5, 0)).unwrap();
    peer.handle_frame(plain.now, crate::link::LinkId(1), Frame::Types(vec![super::side::fallback()]));
    for (tag, bytes) in [(1, 10), (2, 5000), (3, 200_000)] {
        drop(super::side::push(peer.session().intake(), super::side::NORMAL, tag, bytes).unwrap());
    }
    let mut out = Transmit::new(BodyCheck::Absent);
    peer.poll_transmit(plain.now, &mut out);
    let bytes = out.parts.concat();
    let mut reader = crate::link::FrameReader::new(BodyCheck::Absent);
    reader.buffer().extend_from_slice(&bytes);
    let frames: Vec<_> = std::iter::from_fn(|| reader.next().unwrap()).collect();
    let batches = frames.iter().filter(|frame| matches!(frame, Frame::Batch(_))).count();
    assert!(batches >= 4 && frames.iter().any(|frame| matches!(frame, Frame::Types(_))), "{frames:?}");
    // Exactly what is encoded without checksums: nothing else is between the frames or behind them.
    let again: Vec<u8> = frames.iter().flat_map(|each| frame::encode(each, BodyCheck::Absent)).collect();
    assert!(again == bytes);
    while let Some(output) = {
        peer.end(Cause::Closed);
        peer.poll_output()
    } {
        if let PeerOutput::Close { farewell: Some(farewell), .. } = output {
            let mut reader = crate::link::FrameReader::new(BodyCheck::Absent);
            reader.buffer().extend_from_slice(&farewell);
            assert!(matches!(reader.next(), Ok(Some(Frame::Close { .. }))));
        }
    }
}
