//! Names: resolved anew at each dial, by a resolver that may hang; several addresses of one.

use std::net::IpAddr;
use std::sync::atomic::AtomicUsize;

use super::*;

/// Names with their addresses, to be changed while it runs. Says how often it was asked.
#[derive(Clone, Default)]
struct Book {
    entries: Arc<Mutex<HashMap<String, Vec<IpAddr>>>>,
    asked: Arc<AtomicUsize>,
}

impl Book {
    fn set(&self, name: &str, addresses: &[[u8; 4]]) {
        self.entries.lock().insert(name.to_owned(), addresses.iter().map(|at| (*at).into()).collect());
    }

    fn resolver(&self) -> Resolver {
        let book = self.clone();
        Resolver::new(move |name| {
            book.asked.fetch_add(1, Ordering::SeqCst);
            let found = book.entries.lock().get(name).cloned();
            found.ok_or_else(|| std::io::Error::new(std::io::ErrorKind::NotFound, "no such name"))
        })
    }
}

fn named(name: &str, port: u16) -> Endpoint {
    format!("{name}:{port}").parse().unwrap()
}

/// Listens where another does, but for the address.
fn beside(process: &Process, ip: [u8; 4]) -> Process {
    let other = self::process([127, 0, 0, 1], quick(), Limits::default(), Resolver::system());
    let net = OsNet::new(Duration::from_secs(5));
    other.driver.accept(net.listen((ip, process.port).into()).unwrap());
    other
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_contact_by_name_keeps_the_name_and_follows_it_to_another_address() {
    let book = Book::default();
    let first = process([127, 0, 0, 2], quick(), Limits::default(), Resolver::system());
    let second = beside(&first, [127, 0, 0, 3]);
    let client = process([127, 0, 0, 1], quick(), Limits::default(), book.resolver());
    book.set("node.example", &[[127, 0, 0, 2]]);
    let endpoint = named("node.example", first.port);
    let found = client.driver.search(endpoint.clone().into()).await;
    assert!(matches!(found, crate::peer::Finding::Found(id) if id == first.id()), "{found:?}");
    let (_contact, mut who) = client.driver.hold(first.id(), endpoint.into()).unwrap();
    eventually("linked", || client.is_linked(first.id())).await;
    book.set("node.example", &[[127, 0, 0, 3]]);
    drop(first);
    tokio::time::timeout(LONG, who.wait_for(|id| *id == second.id())).await.unwrap().unwrap();
    eventually("linked", || client.is_linked(second.id())).await;
    let asked = book.asked.load(Ordering::SeqCst);
    assert!(asked >= 3, "asked {asked} times: the search, the first link, the one after");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_with_an_address_where_nobody_is_is_reached_at_the_other() {
    let book = Book::default();
    let server = process([127, 0, 0, 2], quick(), Limits::default(), Resolver::system());
    let client = process([127, 0, 0, 1], quick(), Limits::default(), book.resolver());
    // Nobody listens at the first; a port that swallows connections is in `connect`, in virtual time.
    book.set("node.example", &[[127, 0, 0, 9], [127, 0, 0, 2]]);
    let found = client.driver.search(named("node.example", server.port).into()).await;
    assert!(matches!(found, crate::peer::Finding::Found(id) if id == server.id()), "{found:?}");
    // Several endpoints of one member take turns.
    let handle = client.driver.peer_or_new(&client.driver.registry.lock(), server.id());
    let nowhere = named("nowhere.example", server.port);
    handle.peer.lock().hold_as_member(vec![nowhere, server.endpoint()]);
    client.send(server.id());
    eventually("acknowledged", || client.acked() == 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_resolver_that_hangs_is_bounded_costs_one_thread_a_name_and_delays_nobody() {
    let (book, inside) = (Book::default(), Arc::new(AtomicUsize::new(0)));
    let (release, released) = std::sync::mpsc::channel::<()>();
    let released = Mutex::new(released);
    let (answers, count) = (book.clone(), Arc::clone(&inside));
    let resolver = Resolver::new(move |name| {
        if name == "hangs.example" {
            count.fetch_add(1, Ordering::SeqCst);
            let _released = released.lock().recv();
        }
        answers.asked.fetch_add(1, Ordering::SeqCst);
        Ok(answers.entries.lock().get(name).cloned().unwrap_or_default())
    });
    let times = Timeouts { connect: Duration::from_millis(200), ..quick() };
    let server = process([127, 0, 0, 2], quick(), Limits::default(), Resolver::system());
    let client = process([127, 0, 0, 1], times, Limits::default(), resolver.clone());
    book.set("node.example", &[[127, 0, 0, 2]]);
    book.set("hangs.example", &[[127, 0, 0, 2]]);
    let start = Instant::now();
    let waits = [7400, 7401, 7402].map(|port| {
        let (driver, times) = (Arc::clone(&client.driver), Duration::from_millis(700));
        tokio::spawn(async move {
            let patience = crate::driver::search::Patience::For(times);
            crate::driver::search::run(&driver, named("hangs.example", port).into(), patience).await.0
        })
    });
    eventually("it hangs", || inside.load(Ordering::SeqCst) == 1).await;
    let found = client.driver.search(named("node.example", server.port).into()).await;
    assert!(matches!(found, crate::peer::Finding::Found(_)), "{found:?}");
    assert!(start.elapsed() < Duration::from_millis(600), "{:?}", start.elapsed());
    for wait in waits {
        let found = tokio::time::timeout(LONG, wait).await.unwrap().unwrap();
        assert!(matches!(found, crate::peer::Finding::GaveUp(_)), "{found:?}");
    }
    assert_eq!(inside.load(Ordering::SeqCst), 1, "dials again and again, and one thread waits");
    drop(release);
    eventually("it answers", || book.asked.load(Ordering::SeqCst) == 2).await;
    let found = resolver.resolve("hangs.example", 1).await.unwrap();
    assert_eq!((found.len(), inside.load(Ordering::SeqCst)), (1, 2), "asked anew");
}
