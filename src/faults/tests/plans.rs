use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::sleep;

use super::harness::*;
use crate::faults::{Direction, Ending, Episode, Fault, Hits, Pace, Plan, Schedule, Span};

#[test]
fn a_plan_survives_json_and_unknown_words_are_refused() {
    let schedule = Schedule {
        reset_every_ms: Some((150..=600).into()),
        silence_every_ms: Some(Pace { every: (9, 5).into(), at_most: Some(2) }),
        ..Schedule::default()
    };
    let fault = Fault::Cut { direction: Direction::Up, after_bytes: 3, ending: Ending::Rst };
    let plan = Plan {
        episodes: vec![Episode { at_ms: 5, fault, lasts_ms: None }],
        hits: Hits::One,
        ..Plan::new(4, schedule)
    };
    let json = serde_json::to_string(&plan).unwrap();
    assert!(json.contains(r#""reset_every_ms":{"every":[150,600],"at_most":null}"#), "{json}");
    assert!(json.contains(r#"{"cut":{"direction":"up","after_bytes":3,"ending":"rst"}}"#), "{json}");
    assert_eq!(serde_json::from_str::<Plan>(&json).unwrap(), plan);
    assert_eq!(serde_json::from_str::<Span>("[9,5]").unwrap(), Span::from(5..=9));
    assert!(serde_json::from_str::<Plan>(r#"{"sead":1}"#).is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scheduled_faults_all_together_and_each_within_its_limit() {
    let schedule = Schedule {
        reset_every_ms: Some((20..=60).into()),
        silence_every_ms: Some(Pace::from(30..=50).at_most(2)),
        one_way_every_ms: Some(Pace::from(30..=50).at_most(1)),
        cut_after_bytes: Some((1..=200_000).into()),
        flip_every_bytes: Some(Pace::from(1..=100_000).at_most(5)),
        ..Schedule::default()
    };
    let bench = Bench::new(Plan::new(11, schedule)).await;
    let sink = async {
        loop {
            let (mut server, _) = bench.target.accept().await.unwrap();
            tokio::spawn(async move { read_all(&mut server).await });
        }
    };
    let source = async {
        loop {
            let Ok(mut client) = bench.try_client().await else { continue };
            let (mut reads, mut writes) = client.split();
            let sends = async {
                while writes.write_all(&[1; 5000]).await.is_ok() {
                    sleep(Duration::from_millis(1)).await;
                }
            };
            tokio::select! {
                () = sends => {}
                // Nothing is sent this way: an end.
                _ = reads.read_u8() => {}
                // A link that hangs is given up, as a messenger would.
                () = sleep(Duration::from_millis(100)) => {}
            }
        }
    };
    let all = bench.eventually(|counts| {
        let limited = (counts.silences, counts.one_ways, counts.flips) == (2, 1, 5);
        limited && counts.resets >= 3 && counts.cuts >= 3
    });
    tokio::select! {
        () = sink => {}
        () = source => {}
        () = all => {}
    }
    let counts = bench.proxy.counts();
    assert_eq!((counts.silences, counts.one_ways, counts.flips), (2, 1, 5));
    bench.proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scheduled_cuts_come_where_the_seed_says() {
    let cuts = async |seed| {
        let cut_after_bytes = Some((1..=100_000).into());
        let bench = Bench::new(Plan::new(seed, Schedule { cut_after_bytes, ..Schedule::default() })).await;
        let mut lengths = Vec::new();
        for _ in 0..5 {
            let (mut client, mut server) = bench.pair().await;
            let sends = tokio::spawn(async move { client.write_all(&noise(200_000)).await });
            lengths.push(read_all(&mut server).await.0.len());
            let _ = sends.await.unwrap();
        }
        assert_eq!(bench.proxy.counts().cuts, 5);
        lengths
    };
    assert_eq!(cuts(1).await, cuts(1).await);
    assert_ne!(cuts(1).await, cuts(2).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_at_a_time_hits_only_one() {
    // Comes again while nobody is there, and counts only when it hits.
    let reset_every_ms = Some(Pace::from(50..=50).at_most(1));
    let plan = Plan { hits: Hits::One, ..Plan::new(1, Schedule { reset_every_ms, ..Schedule::default() }) };
    let bench = Bench::new(plan).await;
    let _pairs = [bench.pair().await, bench.pair().await, bench.pair().await];
    bench.eventually(|counts| counts.resets == 1 && counts.live == 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn healing_disarms_what_waits_and_leaves_the_silent_silent() {
    let schedule = Schedule {
        reset_every_ms: Some((3_000..=3_000).into()),
        cut_after_bytes: Some((1_000..=2_000).into()),
        flip_every_bytes: Some((1_000..=2_000).into()),
        ..Schedule::default()
    };
    let bench = Bench::new(Plan::new(1, schedule)).await;
    let (mut held, _held_server) = bench.pair().await;
    bench.proxy.inject(Fault::Silence { drain: false });
    bench.eventually(|counts| counts.held == 1).await;
    let (mut client, mut server) = bench.pair().await;
    bench.proxy.inject(Fault::Cut { direction: Direction::Up, after_bytes: 500, ending: Ending::Fin });
    bench.proxy.heal();
    let bytes = noise(100_000);
    for _ in 0..2 {
        // Armed before, and a connection made after.
        within(client.write_all(&bytes)).await.unwrap();
        client.shutdown().await.unwrap();
        let (got, end) = read_all(&mut server).await;
        assert!(got == bytes && end.is_ok());
        (client, server) = bench.pair().await;
    }
    sees_nothing(&mut held).await;
    // What is injected after it counts again, also when the weather changes.
    bench.proxy.inject(Fault::Cut { direction: Direction::Up, after_bytes: 500, ending: Ending::Fin });
    bench.proxy.set_delay(Some(Duration::from_millis(1)));
    within(client.write_all(&bytes)).await.unwrap();
    assert_eq!(read_all(&mut server).await.0.len(), 500);
    let counts = bench.proxy.counts();
    assert_eq!((counts.cuts, counts.flips, counts.resets), (1, 0, 0));
}
