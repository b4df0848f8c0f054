//! Values to octets.

use serde::Serialize;
use serde::ser::{
    SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant, SerializeTuple, SerializeTupleStruct,
    SerializeTupleVariant, Serializer,
};

use super::{ANCHORS, MOST, NEAR, Refused, Templates, Token, Tokens, folded, unfolded, write_number};

/// Takes values and gives the octets for all of them.
pub struct Freezer {
    tokens: Tokens,
    /// File, number and time of the packets so far.
    packets: Vec<(u64, u64, i64)>,
    anchors: Vec<u32>,
}

impl Default for Freezer {
    fn default() -> Self {
        let tokens = Tokens { all: Vec::with_capacity(512), texts: Vec::with_capacity(128) };
        Self { tokens, packets: Vec::with_capacity(16), anchors: vec![0] }
    }
}

impl Freezer {
    /// Writes a value down.
    pub fn put<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Refused> {
        value.serialize(&mut *self)?;
        if self.tokens.all.len() + 3 * self.packets.len() < MOST { Ok(()) } else { Err(Refused) }
    }

    /// Everything that was put, behind `head`, which stays as it is. The first packet that was put can be read alone.
    pub fn finish(self, head: &[u8], templates: &mut Templates) -> Box<[u8]> {
        let mut out = Vec::with_capacity(self.tokens.all.len() + 64);
        out.extend_from_slice(head);
        let mut before = self.packets.first().copied().unwrap_or_default();
        write_number(&mut out, before.0);
        write_number(&mut out, before.1);
        write_number(&mut out, folded(before.2));
        // Many captures count microseconds.
        let coarse = self.packets.windows(2).all(|pair| pair[1].2.wrapping_sub(pair[0].2) % 1000 == 0);
        let mut tokens = Tokens { all: Vec::with_capacity(self.tokens.all.len() + 32), texts: self.tokens.texts };
        tokens.number((self.packets.len() as u64) << 1 | u64::from(coarse));
        for (file, number, time) in self.packets.into_iter().skip(1) {
            tokens.number(folded(file.wrapping_sub(before.0) as i64));
            tokens.number(folded(number.wrapping_sub(before.1) as i64));
            tokens.number(folded(time.wrapping_sub(before.2) / if coarse { 1000 } else { 1 }));
            before = (file, number, time);
        }
        tokens.all.extend(self.tokens.all);
        templates.write(tokens, &mut out);
        // Copied: memory that was taken for more would be kept.
        Box::from(out.as_slice())
    }

    fn number(&mut self, number: u64) {
        self.tokens.number(number);
    }

    /// What was written from `start` on is a packet.
    fn packet(&mut self, start: usize) -> Result<(), Refused> {
        let Some(&[Token::Number(file), Token::Number(number), Token::Number(time)]) = self.tokens.all.get(start..)
        else {
            return Err(Refused);
        };
        self.tokens.all.truncate(start);
        let packet = (file, number, unfolded(time));
        let place = self.packets.iter().position(|known| *known == packet).unwrap_or(self.packets.len());
        if place == self.packets.len() {
            self.packets.push(packet);
        }
        self.number(place as u64);
        Ok(())
    }

    /// What was written from `start` on is a sequence number.
    fn seq(&mut self, start: usize) -> Result<(), Refused> {
        let Some(&[Token::Number(number)]) = self.tokens.all.get(start..) else { return Err(Refused) };
        self.tokens.all.truncate(start);
        let number = number as u32;
        let distance = |anchor: &u32| number.wrapping_sub(*anchor) as i32;
        let near = self.anchors.iter().enumerate().min_by_key(|(_, anchor)| distance(anchor).unsigned_abs());
        match near.map(|(place, anchor)| (place, distance(anchor))) {
            Some((place, distance)) if distance.unsigned_abs() < NEAR => {
                self.number((folded(distance.into()) << 3 | place as u64) << 1);
            }
            _ => {
                self.number(u64::from(number) << 1 | 1);
                if self.anchors.len() < ANCHORS {
                    self.anchors.push(number);
                }
            }
        }
        Ok(())
    }
}

/// The parts of a value of several; where it began, when it is a packet.
pub struct Parts<'f> {
    freezer: &'f mut Freezer,
    packet: Option<usize>,
}

impl<'f> Serializer for &'f mut Freezer {
    type Ok = ();
    type Error = Refused;
    type SerializeSeq = Parts<'f>;
    type SerializeTuple = Parts<'f>;
    type SerializeTupleStruct = Parts<'f>;
    type SerializeTupleVariant = Parts<'f>;
    type SerializeMap = Parts<'f>;
    type SerializeStruct = Parts<'f>;
    type SerializeStructVariant = Parts<'f>;

    fn serialize_bool(self, value: bool) -> Result<(), Refused> {
        self.serialize_u8(value.into())
    }

    fn serialize_i8(self, value: i8) -> Result<(), Refused> {
        self.serialize_i64(value.into())
    }

    fn serialize_i16(self, value: i16) -> Result<(), Refused> {
        self.serialize_i64(value.into())
    }

    fn serialize_i32(self, value: i32) -> Result<(), Refused> {
        self.serialize_i64(value.into())
    }

    fn serialize_i64(self, value: i64) -> Result<(), Refused> {
        self.number(folded(value));
        Ok(())
    }

    fn serialize_i128(self, value: i128) -> Result<(), Refused> {
        self.serialize_u128(value as u128)
    }

    fn serialize_u8(self, value: u8) -> Result<(), Refused> {
        self.number(value.into());
        Ok(())
    }

    fn serialize_u16(self, value: u16) -> Result<(), Refused> {
        self.serialize_u64(value.into())
    }

    fn serialize_u32(self, value: u32) -> Result<(), Refused> {
        self.serialize_u64(value.into())
    }

    fn serialize_u64(self, value: u64) -> Result<(), Refused> {
        self.number(value);
        Ok(())
    }

    fn serialize_u128(self, value: u128) -> Result<(), Refused> {
        self.number((value >> 64) as u64);
        self.number(value as u64);
        Ok(())
    }

    fn serialize_f32(self, _: f32) -> Result<(), Refused> {
        Err(Refused)
    }

    fn serialize_f64(self, _: f64) -> Result<(), Refused> {
        Err(Refused)
    }

    fn serialize_char(self, value: char) -> Result<(), Refused> {
        self.serialize_u32(value.into())
    }

    fn serialize_str(self, value: &str) -> Result<(), Refused> {
        self.serialize_bytes(value.as_bytes())
    }

    fn serialize_bytes(self, value: &[u8]) -> Result<(), Refused> {
        self.tokens.text(value);
        Ok(())
    }

    fn serialize_none(self) -> Result<(), Refused> {
        self.serialize_u8(0)
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), Refused> {
        self.number(1);
        value.serialize(self)
    }

    fn serialize_unit(self) -> Result<(), Refused> {
        Ok(())
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<(), Refused> {
        Ok(())
    }

    fn serialize_unit_variant(self, _: &'static str, number: u32, _: &'static str) -> Result<(), Refused> {
        self.serialize_u32(number)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, name: &'static str, value: &T) -> Result<(), Refused> {
        let start = self.tokens.all.len();
        value.serialize(&mut *self)?;
        if name == "Seq" { self.seq(start) } else { Ok(()) }
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        number: u32,
        _: &'static str,
        value: &T,
    ) -> Result<(), Refused> {
        self.number(number.into());
        value.serialize(self)
    }

    fn serialize_seq(self, len: Option<usize>) -> Result<Parts<'f>, Refused> {
        self.number(len.ok_or(Refused)? as u64);
        Ok(Parts { freezer: self, packet: None })
    }

    fn serialize_tuple(self, _: usize) -> Result<Parts<'f>, Refused> {
        Ok(Parts { freezer: self, packet: None })
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Parts<'f>, Refused> {
        Ok(Parts { freezer: self, packet: None })
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        number: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Parts<'f>, Refused> {
        self.number(number.into());
        Ok(Parts { freezer: self, packet: None })
    }

    fn serialize_map(self, len: Option<usize>) -> Result<Parts<'f>, Refused> {
        self.serialize_seq(len)
    }

    fn serialize_struct(self, name: &'static str, _: usize) -> Result<Parts<'f>, Refused> {
        let packet = (name == "PacketRef").then_some(self.tokens.all.len());
        Ok(Parts { freezer: self, packet })
    }

    fn serialize_struct_variant(
        self,
        name: &'static str,
        number: u32,
        variant: &'static str,
        len: usize,
    ) -> Result<Parts<'f>, Refused> {
        self.serialize_tuple_variant(name, number, variant, len)
    }
}

impl Parts<'_> {
    fn part<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Refused> {
        value.serialize(&mut *self.freezer)
    }

    fn whole(self) -> Result<(), Refused> {
        self.packet.map_or(Ok(()), |start| self.freezer.packet(start))
    }
}

/// The kinds of values with several parts differ by the name of one call only.
macro_rules! several {
    ($($kind:ident $part:ident ($($name:ident)?),)*) => {$(
        impl $kind for Parts<'_> {
            type Ok = ();
            type Error = Refused;

            fn $part<T: Serialize + ?Sized>(&mut self, $($name: &'static str,)? value: &T) -> Result<(), Refused> {
                self.part(value)
            }

            fn end(self) -> Result<(), Refused> {
                self.whole()
            }
        }
    )*};
}

several! {
    SerializeSeq serialize_element (),
    SerializeTuple serialize_element (),
    SerializeTupleStruct serialize_field (),
    SerializeTupleVariant serialize_field (),
    SerializeStruct serialize_field (_name),
    SerializeStructVariant serialize_field (_name),
}

impl SerializeMap for Parts<'_> {
    type Ok = ();
    type Error = Refused;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Refused> {
        self.part(key)
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Refused> {
        self.part(value)
    }

    fn end(self) -> Result<(), Refused> {
        self.whole()
    }
}
