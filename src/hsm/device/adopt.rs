//! Keys that another tool made.

use super::{Device, DeviceError};
use crate::hsm::message::{Adopt, Answer, Call, Generated, Handle, Listed, ObjectId};
use crate::jose::{Algorithm, PublicKey};

impl Device {
    /// The one key pair that another tool made and named so, proven as one
    /// that is made here. Changes nothing.
    ///
    /// # Errors
    /// [`DeviceError::Refused`] where there is none, or there are several, or
    /// it is not for this algorithm; [`DeviceError::BadKey`] where it must not
    /// be published.
    pub async fn look(&self, from: Handle, algorithm: Algorithm) -> Result<Listed, DeviceError> {
        let into = None;
        let adopt = Adopt {
            from,
            algorithm,
            into,
        };
        let call = Call::Adopt(Box::new(adopt));
        match self.control(call, self.patience()).await? {
            Answer::Adoptable(listed) => Ok(listed),
            other => Err(self.unexpected(&other)),
        }
    }

    /// Gives that pair the id `object`, or finds that it was done: from here
    /// on it is found and destroyed as one that was made here.
    ///
    /// # Errors
    /// As [`Self::look`]; after these two nothing was changed.
    pub async fn adopt(
        &self,
        from: Handle,
        algorithm: Algorithm,
        object: ObjectId,
        expected: PublicKey,
    ) -> Result<Generated, DeviceError> {
        let adopt = Adopt {
            from,
            algorithm,
            into: Some((object, expected)),
        };
        let call = Call::Adopt(Box::new(adopt));
        match self.control(call, self.patience()).await? {
            Answer::Generated(generated) => Ok(generated),
            other => Err(self.unexpected(&other)),
        }
    }
}
