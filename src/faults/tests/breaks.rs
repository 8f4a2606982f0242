use tokio::io::AsyncWriteExt;

use super::harness::*;
use crate::faults::{Direction, Ending, Fault, Pace, Plan, Schedule};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forwards_both_ways_and_passes_each_end_on() {
    let bench = Bench::new(Plan::default()).await;
    let (mut client, mut server) = bench.pair().await;
    let bytes = noise(3_000_000);
    let sent = bytes.clone();
    let sends = tokio::spawn(async move {
        within(client.write_all(&sent)).await.unwrap();
        client.shutdown().await.unwrap();
        client
    });
    let (got, end) = read_all(&mut server).await;
    assert!(got == bytes && end.is_ok());
    let mut client = sends.await.unwrap();
    // The other direction is still open.
    passes(&mut server, &mut client).await;
    drop(server);
    assert_eq!(read_all(&mut client).await.0, b"");
    bench.eventually(|counts| counts.live == 0).await;
    let counts = bench.proxy.counts();
    assert_eq!((counts.connections, counts.bytes_up, counts.bytes_down), (1, 3_000_000, 7));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reset_is_seen_as_a_reset_on_both_sides() {
    let bench = Bench::new(Plan::default()).await;
    let (mut client, mut server) = bench.pair().await;
    passes(&mut client, &mut server).await;
    assert_eq!(bench.proxy.inject(Fault::Reset), 1);
    sees_reset(&mut client).await;
    sees_reset(&mut server).await;
    bench.eventually(|counts| counts.live == 0).await;
    assert_eq!(bench.proxy.inject(Fault::Reset), 0);
    assert_eq!(bench.proxy.counts().resets, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reset_of_one_side_reaches_the_other_and_is_no_fault() {
    let bench = Bench::new(Plan::default()).await;
    let (mut client, mut server) = bench.pair().await;
    passes(&mut client, &mut server).await;
    crate::faults::parting::reset(client);
    sees_reset(&mut server).await;
    assert_eq!(bench.proxy.counts().resets, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_delivers_exactly_its_bytes() {
    let bench = Bench::new(Plan::default()).await;
    let mut cuts = 0;
    for after_bytes in [0, 1, 2, 1000, 65_535, 65_536, 65_537, 131_073, 400_001] {
        for (direction, ending) in [
            (Direction::Up, Ending::Fin),
            (Direction::Down, Ending::Fin),
            (Direction::Up, Ending::Rst),
            (Direction::Down, Ending::Rst),
        ] {
            let (client, server) = bench.pair().await;
            let (mut from, mut to) = match direction {
                Direction::Up => (client, server),
                Direction::Down => (server, client),
            };
            passes(&mut from, &mut to).await;
            assert_eq!(bench.proxy.inject(Fault::Cut { direction, after_bytes, ending }), 1);
            let bytes = noise(500_000);
            let sent = bytes.clone();
            let sends = tokio::spawn(async move {
                // Fails when the cut comes; a reset is told only once.
                let wrote = within(from.write_all(&sent)).await;
                wrote.and(read_all(&mut from).await.1)
            });
            let (got, end) = read_all(&mut to).await;
            let cut = usize::try_from(after_bytes).unwrap();
            assert_eq!(got.len(), cut, "{direction:?} {ending:?}");
            assert!(got == bytes[..cut]);
            drop(to);
            let far_end = sends.await.unwrap();
            match ending {
                Ending::Fin => assert!(end.is_ok(), "{end:?}"),
                Ending::Rst => assert!(is_reset(&end) && far_end.is_err(), "{end:?} {far_end:?}"),
            }
            cuts += 1;
            bench.eventually(|counts| counts.live == 0 && counts.cuts == cuts).await;
        }
    }
    assert_eq!(bench.proxy.counts().resets, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flip_changes_exactly_one_bit() {
    let bench = Bench::new(Plan::default()).await;
    for after_bytes in [0, 1, 65_535, 65_536, 299_999] {
        let (mut client, mut server) = bench.pair().await;
        passes(&mut client, &mut server).await;
        bench.proxy.inject(Fault::Flip { direction: Direction::Up, after_bytes, bit: 5 });
        let bytes = noise(300_000);
        let sent = bytes.clone();
        let sends = tokio::spawn(async move {
            within(client.write_all(&sent)).await.unwrap();
            client.shutdown().await.unwrap();
            client
        });
        let (got, end) = read_all(&mut server).await;
        assert!(end.is_ok());
        let at = usize::try_from(after_bytes).unwrap();
        assert_eq!(differences(&got, &bytes), (1, vec![at]));
        assert_eq!(got[at] ^ bytes[at], 1 << 5);
        // The connection is otherwise untouched.
        passes(&mut server, &mut sends.await.unwrap()).await;
        drop(server);
        bench.eventually(|counts| counts.live == 0).await;
    }
    assert_eq!(bench.proxy.counts().flips, 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flip_whose_byte_never_comes_does_not_count() {
    let bench = Bench::new(Plan::default()).await;
    let (mut client, mut server) = bench.pair().await;
    bench.proxy.inject(Fault::Flip { direction: Direction::Up, after_bytes: 7, bit: 0 });
    passes(&mut client, &mut server).await;
    drop((client, server));
    bench.eventually(|counts| counts.live == 0).await;
    assert_eq!(bench.proxy.counts().flips, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scheduled_flips_come_where_the_seed_says_and_are_all_counted() {
    let flipped = async |seed, at_most| {
        let pace = Pace::from(1000..=9000);
        let flip_every_bytes = Some(Pace { at_most, ..pace });
        let bench = Bench::new(Plan::new(seed, Schedule { flip_every_bytes, ..Schedule::default() })).await;
        let (mut client, mut server) = bench.pair().await;
        let bytes = noise(500_000);
        let sent = bytes.clone();
        let sends = tokio::spawn(async move { within(client.write_all(&sent)).await });
        let (got, _) = read_all(&mut server).await;
        sends.await.unwrap().unwrap();
        let (bits, places) = differences(&got, &bytes);
        assert_eq!(u64::from(bits), bench.proxy.counts().flips);
        assert_eq!(places.len() as u64, bench.proxy.counts().flips);
        places
    };
    let all = flipped(1, None).await;
    assert!((50..=500).contains(&all.len()));
    assert_eq!(all, flipped(1, None).await);
    assert_ne!(all, flipped(2, None).await);
    assert_eq!(all[..7], flipped(1, Some(7)).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silence_delivers_nothing_and_never_closes() {
    for drain in [false, true] {
        let bench = Bench::new(Plan::default()).await;
        let (mut client, mut server) = bench.pair().await;
        passes(&mut client, &mut server).await;
        assert_eq!(bench.proxy.inject(Fault::Silence { drain }), 1);
        bench.eventually(|counts| counts.held == 1).await;
        within(client.write_all(b"lost")).await.unwrap();
        within(server.write_all(b"lost")).await.unwrap();
        sees_nothing(&mut server).await;
        sees_nothing(&mut client).await;
        // Other faults neither reach it nor count.
        assert_eq!(bench.proxy.inject(Fault::Reset), 0);
        // The client closes, the server does not learn it.
        drop(client);
        sees_nothing(&mut server).await;
        // New connections work.
        let (mut next, mut next_server) = bench.pair().await;
        passes(&mut next, &mut next_server).await;
        let counts = bench.proxy.counts();
        assert_eq!((counts.live, counts.held, counts.silences, counts.resets), (1, 1, 1, 0));
        assert_eq!(counts.bytes_up, 14);
        bench.proxy.stop().await;
        closes(&mut server).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_draining_silence_swallows_more_than_any_kernel_holds() {
    let bench = Bench::new(Plan::default()).await;
    let (mut client, mut server) = bench.pair().await;
    bench.proxy.inject(Fault::Silence { drain: true });
    bench.eventually(|counts| counts.held == 1).await;
    within(client.write_all(&vec![0; 100_000_000])).await.unwrap();
    sees_nothing(&mut server).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_way_silences_one_direction_only() {
    for (silent, drain) in [(Direction::Up, false), (Direction::Down, false), (Direction::Up, true)] {
        let bench = Bench::new(Plan::default()).await;
        let (client, server) = bench.pair().await;
        let (mut from, mut to) = match silent {
            Direction::Up => (client, server),
            Direction::Down => (server, client),
        };
        passes(&mut from, &mut to).await;
        bench.proxy.inject(Fault::OneWay { silent, drain });
        bench.eventually(|counts| counts.one_ways == 1).await;
        within(from.write_all(b"lost")).await.unwrap();
        sees_nothing(&mut to).await;
        passes(&mut to, &mut from).await;
        // The end of one does not pass, that of the other does; then both directions are silent.
        from.shutdown().await.unwrap();
        sees_nothing(&mut to).await;
        passes(&mut to, &mut from).await;
        to.shutdown().await.unwrap();
        assert!(read_all(&mut from).await.1.is_ok());
        sees_nothing(&mut to).await;
        bench.eventually(|counts| counts.held == 1).await;
    }
}
