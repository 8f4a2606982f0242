//! Byte streams in a world: what is poured in at one end comes out at the other, byte by byte, up to an end or an error.

use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::ledger::{BODY_BYTES_MIN, Tag, body, read};
use super::net::ProcessId;
use super::process::{Note, Notes, Process};
use crate::{ByteStream, MemberId};

/// At most so much in one.
pub(super) const POUR_BYTES_MAX: usize = 400_000;

impl Process {
    /// Pours bytes into a byte stream to another member. What becomes of it the other side sees.
    pub(super) fn pour(&self, to: MemberId, number: u64, bytes: usize) {
        let messenger = self.messenger.clone();
        self.spawn(async move {
            let Ok(mut stream) = messenger.open_stream(to, &number.to_string()).await else { return };
            if stream.write_all(&body(Tag(number), bytes)).await.is_ok() {
                let _lost_with_its_session = stream.shutdown().await;
                let mut rest = [0; 16];
                // Until the other side has read it all and closes.
                while stream.read(&mut rest).await.is_ok_and(|count| count > 0) {}
            }
        });
    }

    /// Takes whatever is poured here, and looks at it.
    pub(super) fn drink(&self, notes: &Arc<Notes>) {
        let (messenger, notes, process) = (self.messenger.clone(), Arc::clone(notes), self.id);
        let gate = Arc::clone(self.host.gate_of());
        self.spawn(async move {
            while let Some(stream) = messenger.accept_stream().await {
                let notes = Arc::clone(&notes);
                drop(tokio::spawn(gate.hold(async move {
                    if let Err(wrong) = drink(stream).await {
                        notes.add(Note::Wrong { process, wrong });
                    } else {
                        notes.add(Note::Drunk { process });
                    }
                })));
            }
        });
    }
}

/// All that comes is the beginning of what was poured; and all of it, if its end comes in order.
async fn drink(mut stream: ByteStream) -> Result<(), String> {
    let number: u64 = stream.name().parse().map_err(|_| format!("a stream named {}", stream.name()))?;
    let mut came = Vec::new();
    let ended = loop {
        let mut some = vec![0; 16 * 1024];
        match stream.read(&mut some).await {
            Ok(0) => break true,
            Ok(count) => came.extend_from_slice(some.get(..count).unwrap_or_default()),
            Err(_) => break false,
        }
        if came.len() > POUR_BYTES_MAX {
            return Err(format!("byte stream {number} brings more than was poured"));
        }
    };
    let whole = body(Tag(number), came.len());
    // The length stands in the beginning: of what is not whole it is another.
    let fits = if ended { read(&came) == Some(Tag(number)) } else { rest(&came) == rest(&whole) };
    if fits {
        let _tells = stream.shutdown().await;
        Ok(())
    } else {
        Err(format!("byte stream {number} brought {} bytes that were not poured, ended {ended}", came.len()))
    }
}

/// What follows the tag and the length.
fn rest(body: &[u8]) -> &[u8] {
    body.get(BODY_BYTES_MIN..).unwrap_or_default()
}

impl super::world::World {
    /// A byte stream to somebody.
    pub(super) fn pour(&mut self, process: ProcessId) {
        let Some(to) = self.recipient(process) else { return };
        self.waits += 1;
        let (number, bytes) = (self.waits, self.chance.usize(12..POUR_BYTES_MAX));
        self.outcome.byte_streams += 1;
        self.process(process).into_iter().for_each(|one| one.pour(to, number, bytes));
    }
}
