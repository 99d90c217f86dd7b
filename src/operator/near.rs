//! Reads of a table at many places at once, where what is done with each hangs on what is found there. By itself each
//! would be waited for; asked for together, the memory gives them together.

/// Places that are asked for at once: so few that what is found there stays near.
pub(super) const TOGETHER: usize = 256;

/// Brings places near, given something that is found at each.
pub(super) fn bring_near(found: impl Iterator<Item = u64>) {
    std::hint::black_box(found.fold(0, |all, found| all ^ found));
}
