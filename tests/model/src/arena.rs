//! Worlds that can be put back as they were.
//!
//! A world cannot be copied: its peers share intakes, receipts and counters. But it is all memory. Each thread has a
//! region of its own; what a world allocates lies there and nowhere else, and nothing of it is known outside. So the bytes
//! of the region are the world, and the same bytes at the same place are the same world again. This takes a microsecond,
//! going the whole way again takes forty. `walk.rs` goes some ways again nevertheless, without a region, and compares.
//!
//! What it needs: worlds hold nothing that is shared with others (no `static` counted by references: each `Side` makes its
//! own), and threads do not exchange what is in a region.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::ptr;
use std::sync::atomic::{Ordering, compiler_fence};

/// Address space, not memory: only what is touched is there.
const REGION_BYTES: usize = 1 << 30;
const ALIGN: usize = 16;
/// Multiples of [`ALIGN`] up to this; of itself up to [`LARGE_BYTES`]; powers of two above.
const SMALL_BYTES: usize = 1024;
const SMALL: usize = SMALL_BYTES / ALIGN + 1;
const LARGE_BYTES: usize = 64 * 1024;
const LARGE: usize = SMALL + LARGE_BYTES / SMALL_BYTES + 1;
const CLASSES: usize = LARGE + usize::BITS as usize;

/// At the beginning of a region, so it is put back as all else.
struct Head {
    /// Nothing above was ever used.
    top: usize,
    /// Freed blocks, each with the next one in it.
    free: [*mut u8; CLASSES],
}

#[derive(Clone, Copy)]
struct Region {
    base: *mut u8,
    /// Whether it is allocated from.
    on: bool,
}

thread_local! {
    static REGION: Cell<Region> = const { Cell::new(Region { base: ptr::null_mut(), on: false }) };
}

/// The program's allocator: that of the system, but for what happens in [`within`].
pub struct Regions;

#[global_allocator]
static REGIONS: Regions = Regions;

/// Which blocks may take each other's place, and how large they are.
const fn class(layout: Layout) -> (usize, usize) {
    let bytes = if layout.size() > layout.align() { layout.size() } else { layout.align() };
    if bytes <= SMALL_BYTES {
        let class = bytes.div_ceil(ALIGN);
        (class, class * ALIGN)
    } else if bytes <= LARGE_BYTES {
        let class = bytes.div_ceil(SMALL_BYTES);
        (SMALL + class, class * SMALL_BYTES)
    } else {
        let bytes = bytes.next_power_of_two();
        (LARGE + bytes.trailing_zeros() as usize, bytes)
    }
}

impl Region {
    fn holds(self, at: *mut u8) -> bool {
        (at as usize).wrapping_sub(self.base as usize) < REGION_BYTES && !self.base.is_null()
    }

    /// # Safety
    ///
    /// The region is this thread's.
    unsafe fn take(self, layout: Layout) -> *mut u8 {
        let (class, bytes) = class(layout);
        if layout.align() > ALIGN || bytes > REGION_BYTES {
            return ptr::null_mut();
        }
        // SAFETY: `base` begins with a `Head`, and all blocks are within the region.
        unsafe {
            let head = &mut *self.base.cast::<Head>();
            let freed = head.free[class];
            if !freed.is_null() {
                head.free[class] = freed.cast::<*mut u8>().read();
                return freed;
            }
            if head.top + bytes > REGION_BYTES {
                return ptr::null_mut();
            }
            let at = self.base.add(head.top);
            head.top += bytes;
            at
        }
    }

    /// # Safety
    ///
    /// `at` was taken with this layout.
    unsafe fn give(self, at: *mut u8, layout: Layout) {
        let (class, _) = class(layout);
        // SAFETY: as above; a block has room for a pointer.
        unsafe {
            let head = &mut *self.base.cast::<Head>();
            at.cast::<*mut u8>().write(head.free[class]);
            head.free[class] = at;
        }
    }
}

// SAFETY: blocks of a region are disjoint, aligned, and at least as large as asked; the rest is the system's.
unsafe impl GlobalAlloc for Regions {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let region = REGION.get();
        // SAFETY: passed on.
        unsafe { if region.on { region.take(layout) } else { System.alloc(layout) } }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        let region = REGION.get();
        // SAFETY: passed on to where it came from.
        unsafe { if region.holds(at) { region.give(at, layout) } else { System.dealloc(at, layout) } }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let region = REGION.get();
        if !region.on && !region.holds(at) {
            // SAFETY: passed on.
            return unsafe { System.realloc(at, layout, size) };
        }
        // SAFETY: the layout is valid, as the caller promises; both blocks have the smaller size.
        unsafe {
            let larger = Layout::from_size_align_unchecked(size, layout.align());
            if region.holds(at) && class(layout) == class(larger) {
                return at;
            }
            let to = self.alloc(larger);
            if !to.is_null() {
                ptr::copy_nonoverlapping(at, to, layout.size().min(size));
                self.dealloc(at, layout);
            }
            to
        }
    }
}

/// What is allocated in here lies in this thread's region. Whoever is given back something must not keep it for longer
/// than the region stays as it is. Panics end it too.
pub fn within<T>(run: impl FnOnce() -> T) -> T {
    struct Off;
    impl Drop for Off {
        fn drop(&mut self) {
            REGION.set(Region { on: false, ..REGION.get() });
        }
    }
    let mut region = REGION.get();
    if region.base.is_null() {
        let layout = Layout::from_size_align(REGION_BYTES, 4096).expect("a layout");
        // SAFETY: not of size zero. It stays until the program ends.
        region.base = unsafe { System.alloc(layout) };
        assert!(!region.base.is_null(), "no address space");
        let head = Head { top: size_of::<Head>().next_multiple_of(ALIGN), free: [ptr::null_mut(); CLASSES] };
        // SAFETY: it has room for a head.
        unsafe { region.base.cast::<Head>().write(head) };
    }
    let _off = Off;
    REGION.set(Region { on: true, ..region });
    run()
}

/// The bytes of this thread's region.
#[inline(never)]
pub fn save(into: &mut Vec<u8>) {
    let base = REGION.get().base;
    compiler_fence(Ordering::SeqCst);
    into.clear();
    // SAFETY: all up to `top` is in the region, and `into` is elsewhere and has room.
    unsafe {
        let top = (*base.cast::<Head>()).top;
        into.reserve(top);
        ptr::copy_nonoverlapping(base, into.as_mut_ptr(), top);
        into.set_len(top);
    }
    compiler_fence(Ordering::SeqCst);
}

/// All in this thread's region is again as it was when it was saved.
///
/// # Safety
///
/// The bytes are of this thread's region, and nobody holds a reference into it.
#[inline(never)]
pub unsafe fn put_back(saved: &[u8]) {
    let base = REGION.get().base;
    compiler_fence(Ordering::SeqCst);
    // SAFETY: they fit in, since they came from there.
    unsafe { ptr::copy_nonoverlapping(saved.as_ptr(), base, saved.len()) };
    compiler_fence(Ordering::SeqCst);
}
