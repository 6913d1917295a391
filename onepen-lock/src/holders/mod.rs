//! Who holds which of SQLite's locks, read from the operating system.
