//! Octets to values.

use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, IntoDeserializer, MapAccess, SeqAccess, VariantAccess,
    Visitor,
};

use super::{ANCHORS, Refused, Templates, Token, Tokens, read_number, unfolded};
use crate::event::PacketRef;
use crate::time::Timestamp;

/// Gives the values back in the order in which they were put.
pub struct Thawer {
    tokens: Tokens,
    /// How many of them were read.
    read: usize,
    packets: Vec<PacketRef>,
    anchors: Vec<u32>,
}

impl Thawer {
    /// Of the octets that a freezer gave, without the head before them.
    pub fn of(mut octets: &[u8], templates: &Templates) -> Option<Self> {
        let first = first(&mut octets).ok()?;
        let tokens = templates.read(octets).ok()?;
        let mut thawer = Self { tokens, read: 0, packets: vec![first], anchors: vec![0] };
        let told = thawer.number().ok()?;
        let unit = if told & 1 == 1 { 1000 } else { 1 };
        for _ in 1..told >> 1 {
            let next = thawer.next(unit).ok()?;
            thawer.packets.push(next);
        }
        Some(thawer)
    }

    /// The first packet that was put.
    pub fn first(mut octets: &[u8]) -> Option<PacketRef> {
        first(&mut octets).ok()
    }

    /// The next value.
    pub fn take<T: DeserializeOwned>(&mut self) -> Option<T> {
        T::deserialize(self).ok()
    }

    fn token(&mut self) -> Result<Token, Refused> {
        let token = *self.tokens.all.get(self.read).ok_or(Refused)?;
        self.read += 1;
        Ok(token)
    }

    fn number(&mut self) -> Result<u64, Refused> {
        match self.token()? {
            Token::Number(number) => Ok(number),
            Token::Text(..) => Err(Refused),
        }
    }

    fn octet(&mut self) -> Result<u8, Refused> {
        u8::try_from(self.number()?).map_err(|_| Refused)
    }

    /// How many parts follow; each of them takes a token.
    fn len(&mut self) -> Result<usize, Refused> {
        let len = usize::try_from(self.number()?).map_err(|_| Refused)?;
        if len > self.tokens.all.len() { Err(Refused) } else { Ok(len) }
    }

    fn bytes(&mut self) -> Result<&[u8], Refused> {
        let token = self.token()?;
        Ok(self.tokens.text_of(token))
    }

    /// The packet behind the latest one.
    fn next(&mut self, unit: i64) -> Result<PacketRef, Refused> {
        let before = *self.packets.last().ok_or(Refused)?;
        let file = unfolded(self.number()?) as u16;
        let number = unfolded(self.number()?) as u64;
        let time = unfolded(self.number()?).wrapping_mul(unit);
        Ok(PacketRef {
            file: before.file.wrapping_add(file),
            number: before.number.wrapping_add(number),
            time: Timestamp(before.time.0.wrapping_add(time)),
        })
    }

    fn packet(&mut self) -> Result<PacketRef, Refused> {
        let place = self.number()?;
        self.packets.get(usize::try_from(place).map_err(|_| Refused)?).copied().ok_or(Refused)
    }

    fn seq(&mut self) -> Result<u32, Refused> {
        let told = self.number()?;
        if told & 1 == 0 {
            let anchor = *self.anchors.get((told >> 1) as usize & 7).ok_or(Refused)?;
            return Ok(anchor.wrapping_add(unfolded(told >> 4) as u32));
        }
        let number = (told >> 1) as u32;
        if self.anchors.len() < ANCHORS {
            self.anchors.push(number);
        }
        Ok(number)
    }

    fn parts<'de, V: Visitor<'de>>(&mut self, left: usize, visitor: V) -> Result<V::Value, Refused> {
        visitor.visit_seq(Parts { thawer: self, left })
    }
}

/// The packet that stands before the rest.
fn first(octets: &mut &[u8]) -> Result<PacketRef, Refused> {
    let file = read_number(octets)? as u16;
    let number = read_number(octets)?;
    Ok(PacketRef { file, number, time: Timestamp(unfolded(read_number(octets)?)) })
}

/// Numbers of any width.
macro_rules! numbers {
    ($($read:ident $visit:ident $kind:ty, $number:ident => $value:expr;)*) => {$(
        fn $read<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
            let $number = self.number()?;
            visitor.$visit(<$kind>::try_from($value).map_err(|_| Refused)?)
        }
    )*};
}

impl<'de> Deserializer<'de> for &mut Thawer {
    type Error = Refused;

    numbers! {
        deserialize_i8 visit_i8 i8, number => unfolded(number);
        deserialize_i16 visit_i16 i16, number => unfolded(number);
        deserialize_i32 visit_i32 i32, number => unfolded(number);
        deserialize_i64 visit_i64 i64, number => unfolded(number);
        deserialize_u16 visit_u16 u16, number => number;
        deserialize_u32 visit_u32 u32, number => number;
        deserialize_u64 visit_u64 u64, number => number;
        deserialize_char visit_char char, number => u32::try_from(number).map_err(|_| Refused)?;
    }

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Refused> {
        Err(Refused)
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        visitor.visit_bool(self.octet()? != 0)
    }

    fn deserialize_u8<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        visitor.visit_u8(self.octet()?)
    }

    fn deserialize_u128<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        visitor.visit_u128(u128::from(self.number()?) << 64 | u128::from(self.number()?))
    }

    fn deserialize_i128<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        visitor.visit_i128((u128::from(self.number()?) << 64 | u128::from(self.number()?)) as i128)
    }

    fn deserialize_f32<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Refused> {
        Err(Refused)
    }

    fn deserialize_f64<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Refused> {
        Err(Refused)
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        visitor.visit_str(std::str::from_utf8(self.bytes()?).map_err(|_| Refused)?)
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        self.deserialize_str(visitor)
    }

    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        visitor.visit_bytes(self.bytes()?)
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        self.deserialize_bytes(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        if self.octet()? == 0 { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        visitor.visit_unit()
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Refused> {
        visitor.visit_unit()
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, name: &'static str, visitor: V) -> Result<V::Value, Refused> {
        if name == "Seq" {
            return visitor.visit_newtype_struct(self.seq()?.into_deserializer());
        }
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        let len = self.len()?;
        self.parts(len, visitor)
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, Refused> {
        self.parts(len, visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, Refused> {
        self.parts(len, visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        let left = self.len()?;
        visitor.visit_map(Parts { thawer: self, left })
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refused> {
        if name == "PacketRef" {
            let packet = self.packet()?;
            return visitor.visit_seq(PacketParts { packet, read: 0 });
        }
        self.parts(fields.len(), visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refused> {
        visitor.visit_enum(self)
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Refused> {
        Err(Refused)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Refused> {
        Err(Refused)
    }
}

/// So many parts that are still to come.
struct Parts<'t> {
    thawer: &'t mut Thawer,
    left: usize,
}

impl<'de> SeqAccess<'de> for Parts<'_> {
    type Error = Refused;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Refused> {
        let Some(left) = self.left.checked_sub(1) else { return Ok(None) };
        self.left = left;
        seed.deserialize(&mut *self.thawer).map(Some)
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.left)
    }
}

impl<'de> MapAccess<'de> for Parts<'_> {
    type Error = Refused;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Refused> {
        self.next_element_seed(seed)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Refused> {
        seed.deserialize(&mut *self.thawer)
    }
}

/// The fields of a packet.
struct PacketParts {
    packet: PacketRef,
    read: u8,
}

impl<'de> SeqAccess<'de> for PacketParts {
    type Error = Refused;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Refused> {
        self.read += 1;
        match self.read {
            1 => seed.deserialize(self.packet.file.into_deserializer()).map(Some),
            2 => seed.deserialize(self.packet.number.into_deserializer()).map(Some),
            3 => seed.deserialize(self.packet.time.0.into_deserializer()).map(Some),
            _ => Ok(None),
        }
    }
}

impl<'de, 't> EnumAccess<'de> for &'t mut Thawer {
    type Error = Refused;
    type Variant = &'t mut Thawer;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self::Variant), Refused> {
        let number = u32::try_from(self.number()?).map_err(|_| Refused)?;
        Ok((seed.deserialize(number.into_deserializer())?, self))
    }
}

impl<'de> VariantAccess<'de> for &mut Thawer {
    type Error = Refused;

    fn unit_variant(self) -> Result<(), Refused> {
        Ok(())
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Refused> {
        seed.deserialize(self)
    }

    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, Refused> {
        self.parts(len, visitor)
    }

    fn struct_variant<V: Visitor<'de>>(self, fields: &'static [&'static str], visitor: V) -> Result<V::Value, Refused> {
        self.parts(fields.len(), visitor)
    }
}
