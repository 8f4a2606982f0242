//! Two messengers in one process: a message, its receipt, and what becomes of one that nobody understands.
//!
//! `cargo run --example receipts`

use std::time::Duration;

use karere::{Cause, Kind, Lost, MemberId, Message, Messenger};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct Order {
    id: u64,
}

impl Message for Order {
    const KIND: Kind = Kind::new("example.order", 1).open();
}

#[derive(Serialize, Deserialize)]
struct Riddle;

impl Message for Riddle {
    const KIND: Kind = Kind::new("example.riddle", 1).open();
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let shop = Messenger::builder().bind("127.0.0.1:0").name("shop").start().await?;
    shop.add_handler(|from: MemberId, order: Order| async move {
        println!("shop: order {} from {from:.8}", order.id);
    })?;
    let address = shop.local_address().ok_or("the shop is not bound")?;

    let customer = Messenger::builder().name("customer").start().await?;
    let contact = customer.contact(address.to_string()).await?;

    let receipt = customer.send_with_receipt(&Order { id: 7 }, contact.id())?;
    receipt.acked().await?;
    println!("customer: the shop has it");
    receipt.handled().await?;
    println!("customer: the shop is done with it");

    match customer.send_with_receipt(&Riddle, contact.id())?.acked().await {
        Err(Lost::NotSent(Cause::NotUnderstood)) => println!("customer: the shop knows no riddles"),
        other => return Err(format!("unexpected: {other:?}").into()),
    }

    customer.leave(Duration::from_secs(5)).await;
    let books = customer.stats().total();
    println!("customer: {} queued, {} acknowledged, {} not sent", books.queued, books.acked, books.not_sent);
    assert!(books.balance());
    shop.close().await;
    Ok(())
}
