//! Bodies: a value that stays one as long as it stays in this process, or bytes.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use super::envelope::{self, Body};
use crate::{EncodeError, Message};

/// A message whose type was erased.
trait Erased: Send {
    fn append_to(&self, out: Vec<u8>) -> Result<Vec<u8>, EncodeError>;
    fn into_any(self: Box<Self>) -> Box<dyn Any + Send>;
}

impl<M: Message> Erased for M {
    fn append_to(&self, out: Vec<u8>) -> Result<Vec<u8>, EncodeError> {
        append(self, out)
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any + Send> {
        self
    }
}

/// As it goes over the wire.
pub(crate) fn encode<M: Message>(message: &M) -> Result<Bytes, EncodeError> {
    envelope::encoded(|out| append(message, out))
}

fn append<M: Message>(message: &M, out: Vec<u8>) -> Result<Vec<u8>, EncodeError> {
    postcard::to_extend(message, out)
        .map_err(|error| EncodeError { kind: M::KIND.name(), cause: error.to_string() })
}

enum Held {
    Value(Box<dyn Erased>),
    Bytes(Bytes),
    /// Somebody has it.
    Taken,
}

/// See the module's text. Copies share what they hold: whoever takes the value first has it, so a message that goes to one
/// handler here is never encoded.
#[derive(Clone)]
pub(crate) enum Content {
    Value(Arc<Mutex<Slot>>, usize),
    Bytes(Bytes),
}

/// Keeps [`Held`] private to this file.
pub(crate) struct Slot(Held);

impl Content {
    pub(crate) fn value<M: Message>(message: M) -> Self {
        let held = Slot(Held::Value(Box::new(message)));
        Self::Value(Arc::new(Mutex::new(held)), size_of::<M>())
    }

    /// The message, as the handler of its type wants it.
    pub(crate) fn decode<M: Message>(&self) -> Result<M, String> {
        let read = |bytes: &Bytes| postcard::from_bytes(bytes).map_err(|error| error.to_string());
        let held = match self {
            Self::Bytes(bytes) => return read(bytes),
            Self::Value(held, _) => {
                let mut held = held.lock();
                match &held.0 {
                    // Encoded: others can read it as well.
                    Held::Bytes(bytes) => Held::Bytes(bytes.clone()),
                    Held::Value(_) | Held::Taken => std::mem::replace(&mut held.0, Held::Taken),
                }
            }
        };
        match held {
            Held::Value(value) => {
                value.into_any().downcast().map(|value| *value).map_err(|_other| "of another type".to_owned())
            }
            Held::Bytes(bytes) => read(&bytes),
            Held::Taken => Err("it was taken already".to_owned()),
        }
    }

    /// As it goes over the wire; encoded once.
    pub(crate) fn to_bytes(&self) -> Result<Bytes, String> {
        let held = match self {
            Self::Bytes(bytes) => return Ok(bytes.clone()),
            Self::Value(held, _) => held,
        };
        let mut held = held.lock();
        match &held.0 {
            Held::Value(value) => {
                let bytes =
                    envelope::encoded(|out| value.append_to(out)).map_err(|error| error.to_string())?;
                held.0 = Held::Bytes(bytes.clone());
                Ok(bytes)
            }
            Held::Bytes(bytes) => Ok(bytes.clone()),
            Held::Taken => Err("it was taken already".to_owned()),
        }
    }
}

impl Content {
    /// As it goes over the wire, behind what is there. A value stays one: this is for what goes once.
    pub(crate) fn append_to(&self, mut out: Vec<u8>) -> Result<Vec<u8>, String> {
        let bytes = match self {
            Self::Bytes(bytes) => bytes,
            Self::Value(held, _) => match &held.lock().0 {
                Held::Value(value) => return value.append_to(out).map_err(|error| error.to_string()),
                Held::Bytes(bytes) => &bytes.clone(),
                Held::Taken => return Err("it was taken already".to_owned()),
            },
        };
        out.extend_from_slice(bytes);
        Ok(out)
    }
}

impl Body for Content {
    fn bytes(&self) -> usize {
        match self {
            Self::Value(_, size) => *size,
            Self::Bytes(bytes) => bytes.len(),
        }
    }
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Value(_, size) => write!(f, "a value of {size} bytes"),
            Self::Bytes(bytes) => write!(f, "{} bytes", bytes.len()),
        }
    }
}
