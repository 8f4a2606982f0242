//! What the labs share: networks of their own, processes that are watched, forms of a show, and what is even in their books.

pub(crate) mod books;
pub(crate) mod form;
pub(crate) mod network;
pub(crate) mod process;
