//! Too many sessions, without sockets.

use super::*;
use crate::limits::LEASES_MAX;
use crate::wire::Hello;
use crate::wire::first::Code;

#[tokio::test]
async fn a_new_peer_beyond_the_bound_is_refused_as_busy_and_one_that_is_known_is_not() {
    let here = plain();
    let incoming = |number: usize| {
        let (conn, other) = tokio::io::duplex(4096);
        let from = Member { id: MemberId::from_parts(1, number as u128), ..Introduction::default().member };
        let to = Some(here.id());
        let hello = Hello { from, to, epoch: Epoch(1), ..Introduction::default().question() };
        let incoming = Incoming { conn: Box::new(conn), hello, rest: bytes::BytesMut::new() };
        here.driver.incoming(incoming).map(|()| other).map_err(|(_, reject)| reject.code)
    };
    let mut held: Vec<_> = (0..LEASES_MAX).map(|number| incoming(number).unwrap()).collect();
    assert_eq!(incoming(LEASES_MAX).unwrap_err(), Code::Busy);
    assert_eq!(here.driver.peers().len(), LEASES_MAX);
    held.push(incoming(7).expect("it has a session"));
    eventually("all are linked", || here.links() == LEASES_MAX).await;
    // A session that ends makes room.
    let last = here.driver.peer(MemberId::from_parts(1, 9)).unwrap();
    last.peer.lock().end(Cause::Closed);
    last.doorbell.ring();
    eventually("it is forgotten", || here.driver.peers().len() < LEASES_MAX).await;
    held.push(incoming(LEASES_MAX).expect("there is room"));
}
