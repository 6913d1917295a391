//! What the header of the wal-index says, read from the memory that SQLite has mapped.

use super::Open;

/// Words of the wal-index header that are compared (`WalIndexHdr`, 48 bytes).
pub(super) type Header = [u64; 6];

/// Where in it is what each commit counts up, and where the number of frames.
const CHANGES: usize = 1;
const FRAMES: usize = 2;

impl Open {
    /// The header of the wal-index, while it is mapped.
    pub(super) fn header(&self) -> Option<Header> {
        let index = self.index.get();
        if index.is_null() {
            return None;
        }
        // SAFETY: the first region is mapped until `xShmUnmap`, is larger than this
        // and aligned to a page. Others write to it, so it is read word by word and
        // without assumptions; what is torn compares as different.
        Some(std::array::from_fn(|word| unsafe {
            index.add(word).read_volatile()
        }))
    }

    #[inline]
    fn word(&self, word: usize) -> Option<u64> {
        let index = self.index.get();
        // SAFETY: as in `header`.
        (!index.is_null()).then(|| unsafe { index.add(word).read_volatile() })
    }

    /// Another one after each commit.
    #[inline]
    pub(super) fn changes(&self) -> Option<u64> {
        self.word(CHANGES)
    }

    /// Frames in the log.
    #[inline]
    pub(super) fn frames(&self) -> Option<u32> {
        let bytes = self.word(FRAMES)?.to_ne_bytes();
        Some(u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }

    /// Whether SQLite is going to copy the log back after this commit.
    #[inline]
    pub(super) fn expects_checkpoint(&self) -> bool {
        let committed = self.changes() != self.at_write.take();
        self.committed.set(committed);
        self.commits.set(u64::from(committed));
        let frames = self.frames().unwrap_or(0);
        committed && frames >= self.checkpoint_at.get()
    }
}
