//! Mutual TLS 1.3: T24, and T25 under TLS.

#![allow(clippy::unwrap_used, reason = "a test")]
#![cfg(feature = "tls")]

mod authority;
mod common;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use authority::{ALPN, Authority, Issued, raw_client};
use common::*;
use karere::{Builder, ConfigError, Contact, ContactError, Messenger, PeerEvent, StartError, Tls, TlsError};
use rustls::pki_types::ServerName;
#[cfg(feature = "faults")]
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

fn with(tls: Tls, name: &str) -> Builder {
    Messenger::builder().name(name).tls(tls).timeouts(patient())
}

async fn listening(tls: Tls, name: &str) -> Messenger {
    with(tls, name).bind("127.0.0.1:0").start().await.unwrap()
}

/// A server `server` and a client `client` of one authority.
async fn two(authority: &Authority) -> (Messenger, Messenger) {
    let server = listening(authority.member("server"), "server").await;
    let client = with(authority.member("client"), "client").start().await.unwrap();
    (server, client)
}

/// The contact is refused at once, not by giving up; what it is told has all of `told`.
async fn is_refused(result: impl Future<Output = Result<Contact, ContactError>>, told: &[&str]) {
    let start = Instant::now();
    match within(LONG, result).await {
        Err(ContactError::Refused { why, .. }) => {
            for part in told {
                assert!(why.contains(part), "not `{part}`: {why}");
            }
        }
        other => panic!("not refused: {other:?}"),
    }
    assert!(start.elapsed() < secs(3), "{:?}", start.elapsed());
}

async fn counts_refusal(messenger: &Messenger) {
    eventually(LONG, || messenger.stats().refused_connections > 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_with_certificates_talk_both_ways_in_all_sizes() {
    let (server, client) = two(&Authority::new()).await;
    let (at_server, at_client) = (Collected::by(&server), Collected::by(&client));
    let words = Arc::new(parking_lot::Mutex::new(Vec::new()));
    let to = Arc::clone(&words);
    server
        .add_handler(move |_, Word(word)| {
            to.lock().push(word.len());
            async {}
        })
        .unwrap();
    let contact = contact(&client, &server).await;
    send_all(&client, contact.id(), 0..2000).await;
    send_all(&server, client.member().id, 0..2000).await;
    at_server.are_exactly(2000, LONG).await;
    at_client.are_exactly(2000, LONG).await;
    let sizes = [0, 1, 4000, 5000, 16_384, 65_536, 200_000, 3_000_000, 7];
    for size in sizes {
        let report = client.send_wait(&Word("x".repeat(size)), [contact.id()], LONG).await.unwrap();
        assert!(report.is_complete());
    }
    eventually(LONG, || words.lock().len() == sizes.len()).await;
    assert_eq!(*words.lock(), sizes);
    assert_eq!((links(&client, contact.id()), client.stats().refused_connections), (1, 0));
    within(LONG, client.leave(LONG)).await;
    assert!(client.stats().total().balance() && client.stats().total().indeterminate == 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_sends_to_itself_under_tls() {
    let (server, _client) = two(&Authority::new()).await;
    let got = Collected::by(&server);
    send_all(&server, server.member().id, 0..500).await;
    got.are_exactly(500, LONG).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plain_karere_is_refused_by_one_with_tls_and_both_say_so() {
    let (server, _) = two(&Authority::new()).await;
    let plain = client(patient()).await;
    is_refused(plain.contact(address(&server).to_string()), &["TLS only", "certificate"]).await;
    counts_refusal(&server).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_with_tls_is_refused_by_a_plain_karere_and_both_say_so() {
    let plain = server(patient()).await;
    let (_, client) = two(&Authority::new()).await;
    is_refused(client.contact(address(&plain).to_string()), &["does not speak TLS"]).await;
    counts_refusal(&plain).await;
    counts_refusal(&client).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_by_an_unknown_authority_is_refused_by_the_client_and_told() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    // Only the client is strict: the server trusts both.
    let tls = theirs.issue(&["server", "127.0.0.1"]).tls(&[&ours, &theirs]);
    let server = listening(tls, "server").await;
    let client = with(ours.member("client"), "client").start().await.unwrap();
    is_refused(client.contact(address(&server).to_string()), &["authority that is not trusted here"]).await;
    counts_refusal(&client).await;
    counts_refusal(&server).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_by_an_unknown_authority_is_refused_by_the_server_and_told() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let server = listening(ours.member("server"), "server").await;
    let tls = theirs.issue(&["client", "127.0.0.1"]).tls(&[&ours, &theirs]);
    let client = with(tls, "client").start().await.unwrap();
    // TLS 1.3: its handshake is over before it hears of that.
    for _ in 0..5 {
        let told = ["refuses", "does not trust the authority of our certificate"];
        is_refused(client.contact(address(&server).to_string()), &told).await;
    }
    counts_refusal(&server).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_authority_of_the_same_name_is_refused_by_both_sides_and_told() {
    let (ours, theirs) = (Authority::called("ca"), Authority::called("ca"));
    let tls = theirs.issue(&["server", "127.0.0.1"]).tls(&[&ours, &theirs]);
    let server = listening(tls, "server").await;
    let client = with(ours.member("client"), "client").start().await.unwrap();
    is_refused(client.contact(address(&server).to_string()), &["certificate at", "of the same name"]).await;
    let server = listening(ours.member("server"), "server").await;
    let tls = theirs.issue(&["client", "127.0.0.1"]).tls(&[&ours, &theirs]);
    let client = with(tls, "client").start().await.unwrap();
    is_refused(client.contact(address(&server).to_string()), &["our certificate", "of the same name"]).await;
    counts_refusal(&server).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_for_another_name_or_host_is_refused_with_both_names() {
    let authority = Authority::new();
    let server = listening(authority.issue(&["server"]).tls(&[&authority]), "server").await;
    let client = with(authority.member("client"), "client").start().await.unwrap();
    let at = address(&server).to_string();
    is_refused(client.contact(&at), &["`server`", "`127.0.0.1`"]).await;
    is_refused(client.contact_named(&at, "other"), &["`server`", "`other`"]).await;
    is_refused(client.contact_named(&at, "not a name"), &["`not a name` cannot be the name"]).await;
    counts_refusal(&server).await;
    let contact = client.contact_named(&at, "server").await.unwrap();
    eventually(LONG, || is_connected(&client, contact.id())).await;
}

/// A TLS server that is no karere: takes connections, and hands them over.
async fn raw_server(issued: &Issued, alpn: &[&[u8]]) -> (SocketAddr, impl Fn() -> usize + use<>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(issued.raw_server(alpn)));
    let failed = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let count = Arc::clone(&failed);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            if acceptor.accept(stream).await.is_err() {
                count.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            }
        }
    });
    (address, move || failed.load(std::sync::atomic::Ordering::SeqCst))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_expired_server_is_refused_and_told() {
    let authority = Authority::new();
    let (at, told) = raw_server(&authority.issue_until(&["127.0.0.1"], 2020), &[ALPN]).await;
    let client = with(authority.member("client"), "client").start().await.unwrap();
    is_refused(client.contact(at.to_string()), &["expired", "days ago", "renewed"]).await;
    counts_refusal(&client).await;
    eventually(LONG, || told() > 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_agrees_on_no_protocol_is_refused() {
    let authority = Authority::new();
    let issued = authority.issue(&["127.0.0.1"]);
    let client = with(authority.member("client"), "client").start().await.unwrap();
    for alpn in [&[][..], &[&b"h2"[..]][..]] {
        let (at, _) = raw_server(&issued, alpn).await;
        is_refused(client.contact(at.to_string()), &["does not speak karere", "karere/1"]).await;
    }
}

/// Opens TLS to a karere, says something, and reads what comes back.
async fn say(to: &Messenger, config: rustls::ClientConfig, bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    let stream = TcpStream::connect(address(to)).await?;
    let name = ServerName::try_from("127.0.0.1").unwrap();
    let mut stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
    stream.write_all(bytes).await?;
    stream.flush().await?;
    let mut reply = Vec::new();
    within(LONG, stream.read_to_end(&mut reply)).await?;
    Ok(reply)
}

/// The golden hello: member `node-1` of network `blue` in `production`.
fn golden_hello() -> Vec<u8> {
    let text = std::fs::read_to_string("tests/golden/hello.hex").unwrap();
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let digits: String = lines.flat_map(|line| line.chars().filter(|char| !char.is_whitespace())).collect();
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_without_certificate_protocol_or_time_left_are_refused() {
    let authority = Authority::new();
    let (server, _) = two(&authority).await;
    let good = authority.issue(&["client"]);
    let old = authority.issue_until(&["client"], 2020);
    let error = say(&server, raw_client(&authority, None, &[ALPN]), b"").await.unwrap_err();
    assert!(error.to_string().contains("CertificateRequired"), "{error}");
    eventually(LONG, || server.stats().refused_connections == 1).await;
    let error = say(&server, raw_client(&authority, Some(&old), &[ALPN]), b"").await.unwrap_err();
    assert!(error.to_string().contains("CertificateExpired"), "{error}");
    eventually(LONG, || server.stats().refused_connections == 2).await;
    let error = say(&server, raw_client(&authority, Some(&good), &[b"h2"]), b"").await.unwrap_err();
    assert!(error.to_string().contains("NoApplicationProtocol"), "{error}");
    eventually(LONG, || server.stats().refused_connections == 3).await;
    let reply = say(&server, raw_client(&authority, Some(&good), &[]), &golden_hello()).await.unwrap();
    assert_eq!(reply, b"", "no ALPN: it means something else, and gets no answer");
    eventually(LONG, || server.stats().refused_connections == 4).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_verdict_reaches_a_client_that_has_said_much_already() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let (server, _) = two(&ours).await;
    let stranger = theirs.issue(&["client"]);
    // More than any buffer on the way: a connection that is just dropped answers with a reset.
    let much = vec![7; 4_000_000];
    let error = say(&server, raw_client(&ours, Some(&stranger), &[ALPN]), &much).await.unwrap_err();
    assert!(error.to_string().contains("UnknownCA"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hello_with_a_name_that_its_certificate_does_not_cover_is_refused_with_both_names() {
    let authority = Authority::new();
    let tls = authority.member("server");
    let server = with(tls, "server").network("production", "blue").bind("127.0.0.1:0").start().await.unwrap();
    let refusal = |names: &'static [&'static str]| {
        let config = raw_client(&authority, Some(&authority.issue(names)), &[ALPN]);
        let server = &server;
        async move { String::from_utf8_lossy(&say(server, config, &golden_hello()).await.unwrap()).into_owned() }
    };
    let text = refusal(&["mallory", "other"]).await;
    assert!(text.contains("`node-1`") && text.contains("`mallory`, `other`"), "{text}");
    eventually(LONG, || server.stats().refused_connections == 1).await;
    // With a certificate that fits, it is judged by the rest: it means another member.
    let text = refusal(&["node-1"]).await;
    assert!(text.contains("another member is here"), "{text}");
}

/// Ends TLS in the middle, with a certificate of its own: what a stolen certificate could do.
async fn middle(authority: &Authority, names: &[&str], to: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    let issued = authority.issue(names);
    let acceptor = TlsAcceptor::from(Arc::new(issued.raw_server(&[ALPN])));
    let connector = TlsConnector::from(Arc::new(raw_client(authority, Some(&issued), &[ALPN])));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, connector) = (acceptor.clone(), connector.clone());
            tokio::spawn(async move {
                let Ok(mut near) = acceptor.accept(stream).await else { return };
                let name = ServerName::try_from("127.0.0.1").unwrap();
                let far = connector.connect(name, TcpStream::connect(to).await.unwrap()).await;
                let Ok(mut far) = far else { return };
                let _ended = tokio::io::copy_bidirectional(&mut near, &mut far).await;
            });
        }
    });
    at
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_with_a_name_that_its_certificate_does_not_cover_is_refused_with_both_names() {
    let authority = Authority::new();
    let (server, client) = two(&authority).await;
    let seen = Seen::by(&client);
    // It may say that it is the client, but not that it is the server.
    let at = middle(&authority, &["client", "127.0.0.1"], address(&server)).await;
    let contact = client.contact(at.to_string()).await.unwrap();
    let refused = |event: &PeerEvent| match event {
        PeerEvent::Refused { peer, why } => {
            *peer == server.member().id && why.contains("`server`") && why.contains("`client`, `127.0.0.1`")
        }
        _ => false,
    };
    eventually(LONG, || seen.count(refused) > 0).await;
    assert!(!is_connected(&client, contact.id()));
    eventually(LONG, || !is_connected(&server, client.member().id)).await;
}

#[tokio::test]
async fn a_messenger_whose_certificate_does_not_fit_does_not_start() {
    let authority = Authority::new();
    let start = |name: &'static str| with(authority.member("alpha"), name).start();
    let error = start("").await.unwrap_err();
    assert!(matches!(error, StartError::Config(ConfigError::Tls(TlsError::NoName { .. }))), "{error}");
    let error = start("beta").await.unwrap_err();
    assert!(
        matches!(error, StartError::Config(ConfigError::Tls(TlsError::NameNotCovered { .. }))),
        "{error}"
    );
    let old = authority.issue_until(&["alpha"], 2020).tls(&[&authority]);
    let error = with(old, "alpha").start().await.unwrap_err();
    assert!(matches!(error, StartError::Config(ConfigError::Tls(TlsError::Expired { .. }))), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rotation_under_load_loses_nothing_and_keeps_links_and_new_links_use_the_new_settings() {
    let (old, new) = (Authority::new(), Authority::new());
    let (server, client) = two(&old).await;
    let got = Collected::by(&server);
    let contact = contact(&client, &server).await;
    let (from, to) = (client.clone(), contact.id());
    let load = tokio::spawn(async move { send_all(&from, to, 0..30_000).await });
    let names = |name| [name, "127.0.0.1"];
    // Both are trusted, then both show the new one, then the old one goes: under load, in steps.
    server.rotate_tls(old.issue(&names("server")).tls(&[&old, &new])).unwrap();
    client.rotate_tls(old.issue(&names("client")).tls(&[&old, &new])).unwrap();
    server.rotate_tls(new.issue(&names("server")).tls(&[&old, &new])).unwrap();
    // In the overlap, one that knows both meets one of each.
    let late = with(old.issue(&names("late")).tls(&[&old, &new]), "late").start().await.unwrap();
    drop(contact_at(&late, address(&server)).await);
    client.rotate_tls(new.issue(&names("client")).tls(&[&old, &new])).unwrap();
    server.rotate_tls(new.issue(&names("server")).tls(&[&new])).unwrap();
    client.rotate_tls(new.issue(&names("client")).tls(&[&new])).unwrap();
    within(secs(30), load).await.unwrap();
    got.are_exactly(30_000, LONG).await;
    assert_eq!((links(&client, contact.id()), client.stats().total().resent), (1, 0), "no link was dropped");
    // Who still shows the old one is refused now; who shows the new one gets in.
    let stale = with(old.issue(&names("stale")).tls(&[&old, &new]), "stale").start().await.unwrap();
    is_refused(stale.contact(address(&server).to_string()), &["does not trust the authority"]).await;
    let fresh = with(new.member("fresh"), "fresh").start().await.unwrap();
    drop(contact_at(&fresh, address(&server)).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rotation_that_does_not_fit_changes_nothing() {
    let authority = Authority::new();
    let (server, client) = two(&authority).await;
    assert!(matches!(server.rotate_tls(authority.member("other")), Err(TlsError::NameNotCovered { .. })));
    let old = authority.issue_until(&["server"], 2020).tls(&[&authority]);
    assert!(matches!(server.rotate_tls(old), Err(TlsError::Expired { .. })));
    let plain = self::client(patient()).await;
    assert_eq!(plain.rotate_tls(authority.member("x")), Err(TlsError::Plain));
    drop(contact(&client, &server).await);
}

/// Connections from 127.0.0.2 that begin a TLS handshake and stop in the middle of it.
async fn stalled(to: SocketAddr, count: usize) -> Vec<TcpStream> {
    let mut all = Vec::new();
    for _ in 0..count {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
        let mut stream = socket.connect(to).await.unwrap();
        stream.write_all(&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3]).await.unwrap();
        all.push(stream);
    }
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_hundred_stalled_handshakes_delay_nobody_else() {
    let authority = Authority::new();
    let (server, client) = two(&authority).await;
    let _held = stalled(address(&server), 300).await;
    let start = Instant::now();
    let _contact = contact(&client, &server).await;
    let took: Duration = start.elapsed();
    assert!(took < secs(1), "{took:?}");
    // All of them end: pushed out by the newer ones, or by the deadline.
    eventually(LONG, || server.stats().refused_connections >= 300).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_stalls_the_handshake_is_given_up_by_the_deadline() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    let authority = Authority::new();
    let client = with(authority.member("client"), "client").timeouts(quick()).start().await.unwrap();
    let start = Instant::now();
    let refused = within(LONG, client.contact(at.to_string())).await.unwrap_err();
    assert!(matches!(refused, ContactError::GaveUp { .. }), "{refused}");
    assert!(start.elapsed() < quick().contact_give_up + secs(1));
}

#[cfg(feature = "faults")]
async fn exchange<S: AsyncRead + AsyncWrite>(stream: S, ours: Vec<u8>) -> Vec<u8> {
    let (mut reader, mut writer) = tokio::io::split(stream);
    let write = async {
        writer.write_all(&ours).await.unwrap();
        writer.shutdown().await.unwrap();
    };
    let mut got = Vec::new();
    let (_, read) = tokio::join!(write, reader.read_to_end(&mut got));
    read.unwrap();
    got
}

#[cfg(feature = "faults")]
mod broken {
    use karere::faults::{Pace, Plan, Schedule};

    use super::*;

    async fn survives(schedule: Schedule, enough: impl Fn(&karere::faults::FaultCounts) -> bool) {
        let (server, client) = two(&Authority::new()).await;
        let proxy = proxy_with(&server, Plan::new(7, schedule));
        let contact = within(secs(30), client.contact(proxy.address().to_string())).await.unwrap();
        let mut rounds = 0;
        while !enough(&proxy.counts()) || rounds < 2 {
            let (up, down) = (pattern(rounds, 1_500_000), pattern(rounds + 1000, 1_000_000));
            let ours = client.open_stream(contact.id(), "duplex").await.unwrap();
            let theirs = within(LONG, server.accept_stream()).await.unwrap();
            let both = async { tokio::join!(exchange(ours, up.clone()), exchange(theirs, down.clone())) };
            let (got_down, got_up) = within(secs(30), both).await;
            assert!(got_down == down && got_up == up, "round {rounds}");
            rounds += 1;
        }
        assert!(client.stats().total().links >= 3);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn bytes_arrive_intact_over_cuts() {
        let cuts = Some(Pace::from(3_000..=400_000).at_most(60));
        survives(Schedule { cut_after_bytes: cuts, ..Schedule::default() }, |counts| counts.cuts >= 8).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn bytes_arrive_intact_over_resets() {
        let resets = Some(Pace::from(10..=60).at_most(30));
        survives(Schedule { reset_every_ms: resets, ..Schedule::default() }, |counts| counts.resets >= 8)
            .await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_flipped_bit_ends_the_link_and_nothing_wrong_is_delivered() {
        let flips = Some(Pace::from(100_000..=600_000).at_most(40));
        survives(Schedule { flip_every_bytes: flips, ..Schedule::default() }, |counts| counts.flips >= 8)
            .await;
    }
}
