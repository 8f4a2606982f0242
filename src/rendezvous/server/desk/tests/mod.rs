//! The desk in virtual time: a state, a log that decides at once or when it is told to, and nodes that keep copies.

mod asks;
mod feeds;
mod hall;
mod histories;
mod lapses;
mod lets_in;
mod lost;
mod speaks;
