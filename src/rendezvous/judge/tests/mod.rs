//! A judge among members of every nature, in virtual time.

mod claims;
mod crowds;
mod hall;
mod random;
