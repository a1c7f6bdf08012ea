//! The memory that Argon2 works in, kept between hashes.

use super::phc::Argon2Cost;
use argon2::Block;
use zeroize::Zeroize;

/// Working memory of one thread that hashes: taken once, used for every hash, wiped when dropped. Fresh memory costs up to as
/// much time as the hash itself, because the system has to hand out zeroed pages.
///
/// It is not wiped between hashes: the next one overwrites all that it reads, and wiping costs a tenth of a hash.
pub struct HashMemory {
    blocks: Vec<Block>,
    kept_blocks: usize,
}

impl HashMemory {
    /// Memory that keeps what hashes of `cost` need. A hash that needs more gets it for as long as it runs.
    pub fn for_cost(cost: Argon2Cost) -> Self {
        Self { blocks: Vec::new(), kept_blocks: cost.block_count() }
    }

    /// The bytes that it holds at the moment.
    pub fn bytes(&self) -> usize {
        self.blocks.capacity().saturating_mul(Block::SIZE)
    }

    /// `None`: the system gives no more memory.
    pub(super) fn blocks(&mut self, count: usize) -> Option<&mut [Block]> {
        if count > self.blocks.len() {
            // Wiped and let go first: growing in place might copy, and leave the copied from behind.
            self.wipe();
            self.blocks = Vec::new();
            self.blocks.try_reserve_exact(count).ok()?;
            self.blocks.resize(count, Block::new());
        }
        self.blocks.get_mut(..count)
    }

    /// Gives back what is beyond the cost that this memory was made for.
    pub(super) fn trim(&mut self) {
        if self.blocks.len() > self.kept_blocks {
            self.wipe();
            self.blocks = Vec::new();
        }
    }

    fn wipe(&mut self) {
        self.blocks.iter_mut().for_each(Zeroize::zeroize);
    }
}

impl core::fmt::Debug for HashMemory {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "HashMemory({} bytes)", self.bytes())
    }
}

impl Drop for HashMemory {
    fn drop(&mut self) {
        self.wipe();
    }
}
