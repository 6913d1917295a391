//! The examples of the guide, run.
