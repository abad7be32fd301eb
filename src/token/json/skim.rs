//! Reading over JSON without building it: for texts that nobody vouches for, of which little is wanted.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use super::{Bounds, JsonError, MAX_VALUES, Within};

/// The text that stands under `name` in the object that `text` is; `None` if there is none, or something else than a
/// text. The whole is read over by the same rules as by [`object`](super::object), but for names inside of other values,
/// and nothing is built of it.
///
/// # Errors
/// See [`JsonError`].
pub fn text_member<'t>(text: &'t [u8], name: &str) -> Result<Option<Cow<'t, str>>, JsonError> {
    let bounds = Bounds::new(MAX_VALUES);
    bounds.read(text, Top { within: bounds.outermost(), name })
}

/// Hands the members of the object that `text` is to `each`, in their order: the name, and the value if it is a text. There
/// may be `max_values` values in all; what is inside of them is only read over. `each` may end it.
///
/// # Errors
/// See [`JsonError`]; that a name occurs twice is for `each` to see.
pub(in crate::token) fn members<'t>(
    text: &'t [u8],
    max_values: usize,
    each: impl FnMut(Cow<'t, str>, Option<Cow<'t, str>>) -> Result<(), JsonError>,
) -> Result<(), JsonError> {
    let bounds = Bounds::new(max_values);
    bounds.read(text, Members { within: bounds.outermost(), each })
}

/// Reads over a value. Its own text, if it is one, comes out, unless it would have to be built for nothing.
#[derive(Clone, Copy)]
struct Skim<'l> {
    within: Within<'l>,
    wanted: bool,
}

impl<'l> Skim<'l> {
    fn over(within: Within<'l>) -> Self {
        Self { within, wanted: false }
    }
}

impl<'de> DeserializeSeed<'de> for Skim<'_> {
    type Value = Option<Cow<'de, str>>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        self.within.one()?;
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Skim<'_> {
    type Value = Option<Cow<'de, str>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Self::Value, E> {
        if value.is_finite() { Ok(None) } else { Err(E::custom("number is not finite")) }
    }

    fn visit_borrowed_str<E>(self, value: &'de str) -> Result<Self::Value, E> {
        Ok(Some(Cow::Borrowed(value)))
    }

    fn visit_str<E>(self, value: &str) -> Result<Self::Value, E> {
        Ok(self.wanted.then(|| Cow::Owned(value.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        let inner = Self::over(self.within.deeper()?);
        while items.next_element_seed(inner)?.is_some() {}
        Ok(None)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self::Value, A::Error> {
        let inner = Self::over(self.within.deeper()?);
        while members.next_key_seed(Is(""))?.is_some() {
            members.next_value_seed(inner)?;
        }
        Ok(None)
    }
}

/// The outermost object, of which one member is wanted.
struct Top<'l, 'n> {
    within: Within<'l>,
    name: &'n str,
}

impl<'de> DeserializeSeed<'de> for Top<'_, '_> {
    type Value = Option<Cow<'de, str>>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        self.within.one()?;
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Top<'_, '_> {
    type Value = Option<Cow<'de, str>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self::Value, A::Error> {
        let within = self.within.deeper()?;
        let mut found = None;
        while let Some(wanted) = members.next_key_seed(Is(self.name))? {
            let value = members.next_value_seed(Skim { within, wanted })?;
            if wanted && found.replace(value).is_some() {
                return self.within.fail(JsonError::DuplicateName);
            }
        }
        Ok(found.flatten())
    }
}

/// The outermost object, member by member.
struct Members<'l, E> {
    within: Within<'l>,
    each: E,
}

impl<'de, E> DeserializeSeed<'de> for Members<'_, E>
where
    E: FnMut(Cow<'de, str>, Option<Cow<'de, str>>) -> Result<(), JsonError>,
{
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        self.within.one()?;
        deserializer.deserialize_map(self)
    }
}

impl<'de, E> Visitor<'de> for Members<'_, E>
where
    E: FnMut(Cow<'de, str>, Option<Cow<'de, str>>) -> Result<(), JsonError>,
{
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut members: A) -> Result<(), A::Error> {
        let within = self.within.deeper()?;
        while let Some(name) = members.next_key_seed(Name)? {
            let value = members.next_value_seed(Skim { within, wanted: true })?;
            if let Err(fault) = (self.each)(name, value) {
                return self.within.fail(fault);
            }
        }
        Ok(())
    }
}

/// A member's name.
struct Name;

impl<'de> DeserializeSeed<'de> for Name {
    type Value = Cow<'de, str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Name {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a member's name")
    }

    fn visit_borrowed_str<E>(self, name: &'de str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(name))
    }

    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(name.to_owned()))
    }
}

/// Whether a member's name is this one.
struct Is<'n>(&'n str);

impl<'de> DeserializeSeed<'de> for Is<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Is<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a member's name")
    }

    fn visit_str<E>(self, name: &str) -> Result<bool, E> {
        Ok(name == self.0)
    }
}
