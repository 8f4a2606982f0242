//! Whether what one sent another is what that one received.

use serde_json::Value;

/// What differs between what was queued, acknowledged (`sent`) and received.
pub(crate) fn uneven(what: &str, sent: &Value, received: &Value) -> Option<String> {
    let received = received.as_u64().unwrap_or_default();
    let [queued, acked] = ["queued", "acked"].map(|what| sent[what].as_u64().unwrap_or_default());
    (queued != acked || acked != received).then(|| format!("{what}: {sent}, received {received}"))
}
