//! Kiln's tests.
