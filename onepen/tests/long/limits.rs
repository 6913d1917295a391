//! A closure that holds the pen for too long.
