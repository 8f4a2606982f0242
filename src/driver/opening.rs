//! The first bytes of a connection, over a real one.

use std::io;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::net::BoxConn;
use super::partings::Parting;
use crate::limits::{HELLO_BYTES_MAX, REFUSAL_LINGER, REMOVAL_LINGER};
use crate::wire::first::{self, FirstBytes};
use crate::wire::{DecodeError, Reject};

/// Why no opening came.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpeningError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("it ended after {0} bytes of a hello")]
    Ended(usize),
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// It wants TLS, and means karere by it: so it is none of the foreign protocols, and may be answered.
    #[error("a karere with certificates, and this process speaks without TLS")]
    WantsTls,
}

/// What a TLS client that means karere offers in its first message, in plain (ALPN, RFC 7301).
const ALPN: &[u8] = b"\x08karere/1";

/// Reads one opening, and what came behind it. Bounded by the longest hello; the caller sets the deadline.
pub(crate) async fn read(conn: &mut BoxConn) -> Result<(FirstBytes, BytesMut), OpeningError> {
    let mut bytes = BytesMut::with_capacity(1024);
    loop {
        let length = first::length(&bytes).map_err(|error| {
            let means_karere = error.is_tls() && bytes.windows(ALPN.len()).any(|offered| offered == ALPN);
            if means_karere { OpeningError::WantsTls } else { error.into() }
        })?;
        if let Some(length) = length
            && bytes.len() >= length
        {
            let opening = bytes.split_to(length);
            return Ok((first::decode(&opening)?, bytes));
        }
        if bytes.len() == bytes.capacity() {
            // Not more than the longest hello: `length` has refused what is longer.
            bytes.reserve(bytes.len().min(HELLO_BYTES_MAX));
        }
        if conn.read_buf(&mut bytes).await? == 0 {
            return Err(OpeningError::Ended(bytes.len()));
        }
    }
}

/// Says hello and reads what comes back.
pub(crate) async fn exchange(
    mut conn: BoxConn,
    hello: Vec<u8>,
) -> Result<(BoxConn, FirstBytes, BytesMut), OpeningError> {
    conn.write_all(&hello).await?;
    conn.flush().await?;
    let (reply, rest) = read(&mut conn).await?;
    Ok((conn, reply, rest))
}

/// Refuses: writes the code, ends this half, and reads to the end, or a reset would destroy the code on its way.
pub(crate) async fn refuse(conn: BoxConn, reject: Box<Reject>) {
    part(conn, vec![first::encode(&FirstBytes::Reject(reject)).into()]).await;
}

/// As [`part`], but at an end as soon as a view removes the member: nothing is left of the connection then.
pub(super) async fn part_unless_removed(parting: Parting, mut conn: BoxConn, words: Vec<Bytes>) {
    let words = tokio::time::timeout(REFUSAL_LINGER, last_words(&mut conn, &words));
    if parting.removed.run_until_cancelled(words).await.is_none() {
        conn.abort();
    }
}

/// As [`part`], to a member that a view has removed: a short time only, and then nothing is left of the connection, in
/// the kernel neither.
pub(crate) async fn part_promptly(mut conn: BoxConn, words: Vec<Bytes>) {
    let _whatever_it_came_to = tokio::time::timeout(REMOVAL_LINGER, last_words(&mut conn, &words)).await;
    conn.abort();
}

/// Writes the last words, ends this half, and reads to the end, for a short time in all.
pub(crate) async fn part(mut conn: BoxConn, words: Vec<Bytes>) {
    let _whatever_it_came_to = tokio::time::timeout(REFUSAL_LINGER, last_words(&mut conn, &words)).await;
}

async fn last_words(conn: &mut BoxConn, words: &[Bytes]) -> io::Result<()> {
    for word in words {
        conn.write_all(word).await?;
    }
    conn.shutdown().await?;
    let mut scratch = vec![0; 4096];
    while conn.read(&mut scratch).await? > 0 {}
    Ok(())
}
