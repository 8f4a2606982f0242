//! karere
#![allow(dead_code, unused_imports)]
pub mod member;
mod limits;
mod wire;
mod session;
mod link;
mod peer;
