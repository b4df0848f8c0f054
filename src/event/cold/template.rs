//! What many flows have in common, and how one of them differs from it.
//!
//! Octets: which template, plus one (0: none), then for each value that differs an octet `between kind`, four bits each: how many values
//! before it do not differ (15: so many and a number more), and of how many octets the difference is (9: a text, 0: nothing follows). Of a text: octets
//! in common at its beginning and at its end, octets between, and those.

use std::collections::HashMap;

use super::{Refused, Token, Tokens, folded, read_number, unfolded, write_number};

/// Shapes remembered, and values of the largest one.
const TEMPLATES: usize = 256;
const LARGEST: usize = 1024;
/// From so many values on the number of those between is written apart.
const FAR: u64 = 15;
/// The kind of a text.
const TEXT: u8 = 9;

/// The first flow of each shape.
#[derive(Default)]
pub struct Templates {
    all: Vec<Tokens>,
    by_shape: HashMap<u64, u32, foldhash::fast::FixedState>,
    octets: usize,
}

impl Templates {
    /// Octets they take.
    pub fn memory(&self) -> usize {
        self.octets
    }

    /// Writes values down, as different from a template of their shape. The first ones of a shape become one.
    pub(super) fn write(&mut self, tokens: Tokens, out: &mut Vec<u8>) {
        let shape = shape(&tokens);
        let mut number = self.by_shape.get(&shape).copied();
        if number.is_none() && self.all.len() < TEMPLATES && tokens.all.len() <= LARGEST {
            number = Some(self.all.len() as u32);
            self.by_shape.insert(shape, self.all.len() as u32);
            self.octets += size_of_val(tokens.all.as_slice()) + tokens.texts.len() + 96;
            self.all.push(Tokens { all: tokens.all.clone(), texts: tokens.texts.clone() });
        }
        let template = number.and_then(|number| self.all.get(number as usize));
        let template = template.filter(|template| template.all.len() == tokens.all.len());
        write_number(out, template.and(number).map_or(0, |number| u64::from(number) + 1));
        let mut between = 0;
        let all = template.map_or(&[][..], |template| &template.all);
        for (place, token) in tokens.all.iter().enumerate() {
            let same = match (*token, all.get(place)) {
                // Nearly all.
                (Token::Number(number), Some(Token::Number(known))) if number == *known => true,
                (Token::Number(number), known) => number_apart(number, known, &mut between, out),
                (Token::Text(..), known) => {
                    let known = template.zip(known).map_or(&[][..], |(template, known)| template.text_of(*known));
                    text_apart(tokens.text_of(*token), known, &mut between, out)
                }
            };
            between += u64::from(same);
        }
        if template.is_none() && between > 0 {
            head(&mut between, 0, out);
        }
    }

    /// The values of which [`Templates::write`] wrote the difference.
    pub(super) fn read(&self, mut octets: &[u8]) -> Result<Tokens, Refused> {
        let template = match read_number(&mut octets)?.checked_sub(1) {
            Some(number) => Some(self.all.get(usize::try_from(number).map_err(|_| Refused)?).ok_or(Refused)?),
            None => None,
        };
        // Nearly all values are the template's.
        let mut tokens = template.cloned().unwrap_or_default();
        let mut place = 0;
        while let Some((head, rest)) = octets.split_first() {
            octets = rest;
            let mut between = u64::from(head >> 4);
            if between == FAR {
                between += read_number(&mut octets)?;
            }
            place = skip(&mut tokens, template.is_some(), place, between)?;
            let known = template.and_then(|template| template.all.get(place));
            match head & 0xf {
                0 => continue,
                TEXT => {
                    let known = template.zip(known).map_or(&[][..], |(template, known)| template.text_of(*known));
                    read_text(&mut octets, known, &mut tokens)?;
                }
                len => {
                    let mut all = [0; 8];
                    let (number, rest) = octets.split_at_checked(len.into()).ok_or(Refused)?;
                    octets = rest;
                    all.get_mut(..number.len()).ok_or(Refused)?.copy_from_slice(number);
                    tokens.number(base(known).wrapping_add(unfolded(u64::from_le_bytes(all)) as u64));
                }
            }
            // What was read lies at the end; it takes the place of what the template has there.
            if place + 1 < tokens.all.len() {
                tokens.all.swap_remove(place);
            }
            place += 1;
        }
        Ok(tokens)
    }
}

/// How many values there are, and which of them are texts.
fn shape(tokens: &Tokens) -> u64 {
    let texts = (0u64..).zip(&tokens.all).filter(|(_, token)| matches!(token, Token::Text(..)));
    texts.fold(tokens.all.len() as u64, |shape, (place, _)| {
        (shape.rotate_left(23) ^ place).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    })
}

/// What a number is measured from.
fn base(known: Option<&Token>) -> u64 {
    match known {
        Some(Token::Number(number)) => *number,
        _ => 0,
    }
}

fn head(between: &mut u64, kind: u8, out: &mut Vec<u8>) {
    out.push(((*between).min(FAR) as u8) << 4 | kind);
    if let Some(more) = between.checked_sub(FAR) {
        write_number(out, more);
    }
    *between = 0;
}

/// Writes by how much a number differs. `true`: not at all, and nothing is written.
fn number_apart(number: u64, known: Option<&Token>, between: &mut u64, out: &mut Vec<u8>) -> bool {
    let apart = folded(number.wrapping_sub(base(known)) as i64);
    if apart == 0 {
        return true;
    }
    let len = 8 - apart.leading_zeros() as usize / 8;
    head(between, len as u8, out);
    out.extend_from_slice(apart.to_le_bytes().get(..len).unwrap_or(&[]));
    false
}

/// The same with texts.
fn text_apart(text: &[u8], known: &[u8], between: &mut u64, out: &mut Vec<u8>) -> bool {
    if text == known {
        return true;
    }
    let same = |(a, b): &(&u8, &u8)| a == b;
    let begin = text.iter().zip(known).take_while(same).count();
    let (mine, theirs) = (text.get(begin..).unwrap_or(&[]), known.get(begin..).unwrap_or(&[]));
    let end = mine.iter().rev().zip(theirs.iter().rev()).take_while(same).count();
    let middle = mine.get(..mine.len() - end).unwrap_or(&[]);
    head(between, TEXT, out);
    for len in [begin, end, middle.len()] {
        write_number(out, len as u64);
    }
    out.extend_from_slice(middle);
    false
}

fn read_text(octets: &mut &[u8], known: &[u8], tokens: &mut Tokens) -> Result<(), Refused> {
    let mut len = || usize::try_from(read_number(octets)?).map_err(|_| Refused);
    let (begin, end, middle) = (len()?, len()?, len()?);
    let (middle, rest) = octets.split_at_checked(middle).ok_or(Refused)?;
    *octets = rest;
    let begin = known.get(..begin).ok_or(Refused)?;
    let end = known.get(known.len().checked_sub(end).ok_or(Refused)?..).ok_or(Refused)?;
    tokens.text(&[begin, middle, end].concat());
    Ok(())
}

/// The place behind so many values that do not differ; without a template they are zero.
fn skip(tokens: &mut Tokens, known: bool, place: usize, count: u64) -> Result<usize, Refused> {
    let behind = place.checked_add(usize::try_from(count).map_err(|_| Refused)?).ok_or(Refused)?;
    // As many as were written at most.
    if behind > if known { tokens.all.len() } else { super::MOST } {
        return Err(Refused);
    }
    if !known {
        tokens.all.resize(behind, Token::Number(0));
    }
    Ok(behind)
}
