//! karere
#![allow(dead_code)]
pub mod member;
mod limits;
mod wire;
mod session;

// pub mod faults;
