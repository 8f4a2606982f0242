//! Which nodes there are: those at some addresses, or, with `--rendezvous LIST` on the command line, those that the servers at these
//! addresses know (`karere rendezvous` starts one).

use karere::Messenger;
use karere::rendezvous::Rendezvous;
use karere::router::{Node, StaticList};

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// The addresses behind `--rendezvous`.
fn rendezvous() -> Option<String> {
    std::env::args().skip_while(|argument| argument != "--rendezvous").nth(1)
}

/// A node of the network, over this messenger.
pub(crate) async fn node<A: Into<String>>(
    messenger: &Messenger,
    addresses: impl IntoIterator<Item = A>,
) -> Result<Node, Failure> {
    let Some(servers) = rendezvous() else {
        return Ok(Node::builder().without_views().source(StaticList::new(addresses)).start(messenger)?);
    };
    let rendezvous = Rendezvous::builder(servers).build()?;
    Ok(Node::builder().join(messenger, &rendezvous).await?.node().clone())
}
