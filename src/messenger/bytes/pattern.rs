//! What the door and the tests send: bytes that tell where they belong.

use std::sync::LazyLock;

/// Made once, because there is much of it and tests are not optimised. A prime long, so that no window and no record is a
/// multiple of it.
static BYTES: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut random = fastrand::Rng::with_seed(1);
    std::iter::repeat_with(|| random.u8(..)).take(65_521).collect()
});

/// What stands at `offset` of the direction that `seed` names.
pub(super) fn pattern(seed: u64, offset: u64, length: usize) -> Vec<u8> {
    let mut at = (offset.wrapping_add(seed.wrapping_mul(7_919)) % BYTES.len() as u64) as usize;
    let mut bytes = Vec::with_capacity(length);
    while bytes.len() < length {
        let piece = (length - bytes.len()).min(BYTES.len() - at);
        bytes.extend_from_slice(&BYTES[at..at + piece]);
        at = 0;
    }
    bytes
}
