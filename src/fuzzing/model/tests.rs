//! The model's own tests.
