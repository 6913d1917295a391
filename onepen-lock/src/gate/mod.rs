//! A fair queue between processes for the write lock.
