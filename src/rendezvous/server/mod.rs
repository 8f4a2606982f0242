//! The rendezvous server: one of the 1, 3 or 5 that keep the log. What the leader does is decided in [`desk`].

mod desk;
