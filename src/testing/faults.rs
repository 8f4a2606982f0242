//! What can go wrong.

/// One kind of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(usize)]
pub(super) enum Fault {
    /// A connection breaks, and both ends are told.
    Reset,
    /// It breaks after a number of bytes, in the midst of whatever passes then; both, one or none are told.
    Cut,
    /// It breaks, and one end is told.
    HalfOpen,
    /// It is silent from now on, for ever, and nobody is told.
    Silence,
    /// What one end writes never arrives.
    OneWay,
    /// Bits are bent.
    Bend,
    /// Nothing gets through between two processes for a while.
    Partition,
    /// Nothing gets from one process to another for a while.
    OneWayPartition,
    /// A connection is slow from now on.
    Slow,
    /// A process stands still for a while.
    Freeze,
    /// A process dies, its kernel resets its connections, and another begins at its address.
    Kill,
    /// A machine dies without a word, and another process begins at its address.
    PowerLoss,
    /// There are no descriptors for a while.
    NoDescriptors,
    /// The wall clock of a process jumps; ids are made from it.
    WallClock,
    /// The clocks of all jump.
    AllClocks,
    /// A view removes a member that is well.
    Remove,
    /// A process leaves in order, and another begins at its address.
    Leave,
    /// Handlers stand still for a while.
    HungHandlers,
    /// Handlers are slow for a while.
    SlowHandlers,
    /// Two processes die, and each other's successors begin at their addresses.
    Swap,
}

impl Fault {
    pub(super) const ALL: [Self; 20] = [
        Self::Reset,
        Self::Cut,
        Self::HalfOpen,
        Self::Silence,
        Self::OneWay,
        Self::Bend,
        Self::Partition,
        Self::OneWayPartition,
        Self::Slow,
        Self::Freeze,
        Self::Kill,
        Self::PowerLoss,
        Self::NoDescriptors,
        Self::WallClock,
        Self::AllClocks,
        Self::Remove,
        Self::Leave,
        Self::HungHandlers,
        Self::SlowHandlers,
        Self::Swap,
    ];

    /// Heavy ones are rarer.
    const fn weight(self) -> u32 {
        match self {
            Self::Reset | Self::Cut | Self::HalfOpen | Self::Silence | Self::OneWay => 6,
            Self::Partition | Self::OneWayPartition | Self::HungHandlers | Self::SlowHandlers => 4,
            Self::Bend | Self::Slow | Self::Freeze | Self::NoDescriptors | Self::Remove => 3,
            Self::Kill | Self::PowerLoss | Self::WallClock | Self::AllClocks | Self::Leave | Self::Swap => 2,
        }
    }

    pub(super) fn choose(chance: &mut fastrand::Rng) -> Self {
        let all: u32 = Self::ALL.iter().map(|fault| fault.weight()).sum();
        let mut at = chance.u32(..all);
        for fault in Self::ALL {
            match at.checked_sub(fault.weight()) {
                Some(rest) => at = rest,
                None => return fault,
            }
        }
        Self::Reset
    }

    /// Whether it is one of a connection.
    pub(super) const fn is_of_link(self) -> bool {
        matches!(
            self,
            Self::Reset
                | Self::Cut
                | Self::HalfOpen
                | Self::Silence
                | Self::OneWay
                | Self::Bend
                | Self::Slow
                | Self::Partition
                | Self::OneWayPartition
        )
    }
}
