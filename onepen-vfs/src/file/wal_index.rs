//! What the header of the wal-index says, read from the memory that SQLite has mapped.

use super::Open;

/// Words of the wal-index header that are compared (`WalIndexHdr`, 48 bytes).
pub(super) type Header = [u64; 6];

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

    /// Frames in the log.
    pub(super) fn frames(&self) -> Option<u32> {
        let header = self.header()?;
        let bytes = header[2].to_ne_bytes();
        Some(u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }

    /// Whether SQLite is going to copy the log back after this commit.
    pub(super) fn expects_checkpoint(&self) -> bool {
        let now = self.header();
        let committed = now != self.at_write.take();
        self.committed.set(committed);
        self.commits.set(u64::from(committed));
        let frames = self.frames().unwrap_or(0);
        committed && frames >= self.checkpoint_at.get()
    }
}
