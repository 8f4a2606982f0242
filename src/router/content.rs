//! Bodies: a value that stays one as long as it stays in this process, or bytes.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use super::envelope::{Body, Scratch};
use crate::{EncodeError, Message};

/// A message of some type, or its bytes.
trait Slot: Any + Send + Sync {
    /// As it goes over the wire, behind what is there. A value stays one.
    fn append_to(&self, out: Vec<u8>) -> Result<Vec<u8>, String>;
    /// As it goes over the wire; encoded once.
    fn to_bytes(&self) -> Result<Bytes, String>;
}

enum Held<M> {
    Value(M),
    Bytes(Bytes),
    /// Somebody has it.
    Taken,
}

/// Up to here an encoded body is copied into its own piece of memory, once; a longer one stays where it was encoded.
const COPIED_BYTES_MAX: usize = 4096;

const TAKEN: &str = "it was taken already";

impl<M: Message> Slot for Mutex<Held<M>> {
    fn append_to(&self, mut out: Vec<u8>) -> Result<Vec<u8>, String> {
        match &*self.lock() {
            Held::Value(value) => append(value, out).map_err(|error| error.to_string()),
            Held::Bytes(bytes) => {
                out.extend_from_slice(bytes);
                Ok(out)
            }
            Held::Taken => Err(TAKEN.to_owned()),
        }
    }

    fn to_bytes(&self) -> Result<Bytes, String> {
        let mut held = self.lock();
        match &*held {
            Held::Value(value) => {
                let bytes = Scratch::write(|out| append(value, out)).map_err(|error| error.to_string())?;
                let bytes = Bytes::copy_from_slice(&bytes);
                *held = Held::Bytes(bytes.clone());
                Ok(bytes)
            }
            Held::Bytes(bytes) => Ok(bytes.clone()),
            Held::Taken => Err(TAKEN.to_owned()),
        }
    }
}

fn append<M: Message>(message: &M, out: Vec<u8>) -> Result<Vec<u8>, EncodeError> {
    postcard::to_extend(message, out)
        .map_err(|error| EncodeError { kind: M::KIND.name(), cause: error.to_string() })
}

/// See the module's text. Copies share what they hold: whoever takes the value first has it, so a message that goes to one
/// handler here is never encoded.
#[derive(Clone)]
pub(crate) enum Content {
    Value(Value, usize),
    /// Of a message: a piece of what was read, or a long one that was encoded.
    Bytes(Bytes),
    /// Encoded here. In one piece with its count, unlike [`Bytes`], which a copy costs another one.
    Encoded(Arc<[u8]>),
}

/// Keeps [`Slot`] private to this file.
#[derive(Clone)]
pub(crate) struct Value(Arc<dyn Slot>);

impl Content {
    pub(crate) fn value<M: Message>(message: M) -> Self {
        Self::Value(Value(Arc::new(Mutex::new(Held::Value(message)))), size_of::<M>())
    }

    /// As it goes over the wire: to be read by many, or elsewhere.
    pub(crate) fn encode<M: Message>(message: &M) -> Result<Self, EncodeError> {
        let bytes = Scratch::write(|out| append(message, out))?;
        if bytes.len() <= COPIED_BYTES_MAX {
            return Ok(Self::Encoded(Arc::from(&*bytes)));
        }
        Ok(Self::Bytes(bytes.into_bytes()))
    }

    /// The message, as the handler of its type wants it.
    pub(crate) fn decode<M: Message>(&self) -> Result<M, String> {
        let read = |bytes: &[u8]| postcard::from_bytes(bytes).map_err(|error| error.to_string());
        match self {
            Self::Bytes(bytes) => read(bytes),
            Self::Encoded(bytes) => read(bytes),
            Self::Value(Value(slot), _) => {
                let slot: &dyn Any = &**slot;
                let held = slot.downcast_ref::<Mutex<Held<M>>>().ok_or("of another type")?;
                let taken = {
                    let mut held = held.lock();
                    match &*held {
                        // Encoded: others can read it as well.
                        Held::Bytes(bytes) => Held::Bytes(bytes.clone()),
                        Held::Value(_) | Held::Taken => std::mem::replace(&mut *held, Held::Taken),
                    }
                };
                match taken {
                    Held::Value(value) => Ok(value),
                    Held::Bytes(bytes) => read(&bytes),
                    Held::Taken => Err(TAKEN.to_owned()),
                }
            }
        }
    }

    /// As it goes over the wire; encoded once.
    pub(crate) fn to_bytes(&self) -> Result<Bytes, String> {
        match self {
            Self::Bytes(bytes) => Ok(bytes.clone()),
            Self::Encoded(bytes) => Ok(Bytes::copy_from_slice(bytes)),
            Self::Value(Value(slot), _) => slot.to_bytes(),
        }
    }

    /// As it goes over the wire, lent to `with`.
    pub(crate) fn lend<R>(&self, with: impl FnOnce(&[u8]) -> R) -> Result<R, String> {
        Ok(match self {
            Self::Bytes(bytes) => with(bytes),
            Self::Encoded(bytes) => with(bytes),
            Self::Value(..) => with(&self.to_bytes()?),
        })
    }

    /// As it goes over the wire, behind what is there. A value stays one: this is for what goes once.
    pub(crate) fn append_to(&self, mut out: Vec<u8>) -> Result<Vec<u8>, String> {
        match self {
            Self::Bytes(bytes) => out.extend_from_slice(bytes),
            Self::Encoded(bytes) => out.extend_from_slice(bytes),
            Self::Value(Value(slot), _) => return slot.append_to(out),
        }
        Ok(out)
    }
}

impl Body for Content {
    fn bytes(&self) -> usize {
        match self {
            Self::Value(_, size) => *size,
            Self::Bytes(bytes) => bytes.len(),
            Self::Encoded(bytes) => bytes.len(),
        }
    }
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Value(_, size) => write!(f, "a value of {size} bytes"),
            Self::Bytes(_) | Self::Encoded(_) => write!(f, "{} bytes", self.bytes()),
        }
    }
}
