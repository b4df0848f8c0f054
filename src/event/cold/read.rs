//! Octets to values.

use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, IntoDeserializer, MapAccess, SeqAccess, VariantAccess,
    Visitor,
};

use super::{ANCHORS, Refused, read_number, unfolded, unsqueeze};
use crate::event::PacketRef;
use crate::time::Timestamp;

/// Gives the values back in the order in which they were put.
pub struct Thawer {
    octets: Vec<u8>,
    /// What was read of them.
    read: usize,
    packets: Vec<PacketRef>,
    anchors: Vec<u32>,
}

impl Thawer {
    /// Of the octets that a freezer gave, without the head before them.
    pub fn of(mut octets: &[u8]) -> Option<Self> {
        let told = read_number(&mut octets).ok()?;
        let mut packets = Vec::new();
        let mut before = PacketRef { file: 0, number: 0, time: Timestamp(0) };
        for place in 0..told >> 1 {
            let unit = if told & 1 == 1 && place > 0 { 1000 } else { 1 };
            before = next(&mut octets, before, unit).ok()?;
            packets.push(before);
        }
        Some(Self { octets: unsqueeze(octets), read: 0, packets, anchors: vec![0] })
    }

    /// The first packet that was put.
    pub fn first(mut octets: &[u8]) -> Option<PacketRef> {
        if read_number(&mut octets).ok()? < 2 {
            return None;
        }
        next(&mut octets, PacketRef { file: 0, number: 0, time: Timestamp(0) }, 1).ok()
    }

    /// The next value.
    pub fn take<T: DeserializeOwned>(&mut self) -> Option<T> {
        T::deserialize(self).ok()
    }

    fn octet(&mut self) -> Result<u8, Refused> {
        let octet = *self.octets.get(self.read).ok_or(Refused)?;
        self.read += 1;
        Ok(octet)
    }

    fn number(&mut self) -> Result<u64, Refused> {
        let rest = self.octets.get(self.read..).ok_or(Refused)?;
        let mut behind = rest;
        let number = read_number(&mut behind)?;
        self.read += rest.len() - behind.len();
        Ok(number)
    }

    /// How many parts follow: none takes less than nothing, so that there are no more than octets, but for parts that take none.
    fn len(&mut self) -> Result<usize, Refused> {
        let len = usize::try_from(self.number()?).map_err(|_| Refused)?;
        if len > self.octets.len() { Err(Refused) } else { Ok(len) }
    }

    fn bytes(&mut self) -> Result<&[u8], Refused> {
        let len = self.len()?;
        let from = self.read;
        let bytes = self.octets.get(from..from + len).ok_or(Refused)?;
        self.read += len;
        Ok(bytes)
    }

    fn packet(&mut self) -> Result<PacketRef, Refused> {
        let place = self.number()?;
        self.packets.get(usize::try_from(place).map_err(|_| Refused)?).copied().ok_or(Refused)
    }

    fn seq(&mut self) -> Result<u32, Refused> {
        if let Some(told) = self.number()?.checked_sub(1) {
            let anchor = *self.anchors.get(told as usize & 7).ok_or(Refused)?;
            return Ok(anchor.wrapping_add(unfolded(told >> 3) as u32));
        }
        let mut number = [0; 4];
        for octet in &mut number {
            *octet = self.octet()?;
        }
        let number = u32::from_le_bytes(number);
        if self.anchors.len() < ANCHORS {
            self.anchors.push(number);
        }
        Ok(number)
    }

    fn parts<'de, V: Visitor<'de>>(&mut self, left: usize, visitor: V) -> Result<V::Value, Refused> {
        visitor.visit_seq(Parts { thawer: self, left })
    }
}

/// The packet behind `before`.
fn next(octets: &mut &[u8], before: PacketRef, unit: i64) -> Result<PacketRef, Refused> {
    let file = unfolded(read_number(octets)?) as u16;
    let number = unfolded(read_number(octets)?) as u64;
    let time = unfolded(read_number(octets)?).wrapping_mul(unit);
    Ok(PacketRef {
        file: before.file.wrapping_add(file),
        number: before.number.wrapping_add(number),
        time: Timestamp(before.time.0.wrapping_add(time)),
    })
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
