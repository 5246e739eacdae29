//! The types that are answered for, read from `schema.graphql`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use anyhow::{Context, Result, bail};
use apollo_parser::Parser;
use apollo_parser::cst::{self, Definition};

/// All types by name.
#[derive(Debug)]
pub struct Schema {
    types: BTreeMap<String, Definite>,
}

/// What a name stands for.
#[derive(Debug)]
pub enum Definite {
    /// Words, of which a value is one.
    Enum(BTreeSet<String>),
    /// Fields of a value that is given.
    Input(BTreeMap<String, Type>),
    /// Fields that can be asked for.
    Object(BTreeMap<String, Field>),
    /// A value without parts.
    Scalar,
}

/// One field of an object.
#[derive(Debug)]
pub struct Field {
    /// What it takes.
    pub arguments: BTreeMap<String, Type>,
    /// What it gives.
    pub gives: Type,
}

/// A type as it is written at a field or an argument.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Type {
    /// Many of one type.
    List(Box<Type>),
    /// A type by its name.
    Named(String),
    /// One that is never null.
    NonNull(Box<Type>),
}

impl Schema {
    /// Reads the types that come with the program.
    ///
    /// # Errors
    /// When the text is not a schema.
    pub fn read() -> Result<Self> {
        let tree = Parser::new(TEXT).parse();
        if let Some(error) = tree.errors().next() {
            bail!("read the schema: {error}");
        }
        let mut types: BTreeMap<String, Definite> = BUILT_IN
            .iter()
            .map(|name| ((*name).to_owned(), Definite::Scalar))
            .collect();
        for definition in tree.document().definitions() {
            let (name, definite) = read(&definition).context("read a type of the schema")?;
            types.insert(name, definite);
        }
        Ok(Self { types })
    }

    /// What a name stands for.
    pub fn find(&self, name: &str) -> Option<&Definite> {
        self.types.get(name)
    }

    /// The fields of an object.
    pub fn object(&self, name: &str) -> Option<&BTreeMap<String, Field>> {
        match self.find(name) {
            Some(Definite::Object(fields)) => Some(fields),
            _ => None,
        }
    }
}

impl Type {
    /// The name within lists and exclamation marks.
    pub fn base(&self) -> &str {
        match self {
            Self::List(inner) | Self::NonNull(inner) => inner.base(),
            Self::Named(name) => name,
        }
    }

    /// Whether a variable of this type may stand where `wanted` is expected.
    pub fn fits(&self, wanted: &Self) -> bool {
        match (self, wanted) {
            (Self::NonNull(own), Self::NonNull(wanted)) | (Self::List(own), Self::List(wanted)) => {
                own.fits(wanted)
            }
            (Self::NonNull(own), wanted) => own.fits(wanted),
            (Self::Named(own), Self::Named(wanted)) => own == wanted,
            _ => false,
        }
    }

    /// Reads a type as a document writes it.
    pub fn read(written: &cst::Type) -> Option<Self> {
        match written {
            cst::Type::ListType(list) => Some(Self::List(Box::new(Self::read(&list.ty()?)?))),
            cst::Type::NamedType(named) => Some(Self::Named(named.name()?.text().to_string())),
            cst::Type::NonNullType(inner) => {
                let inner = match (inner.named_type(), inner.list_type()) {
                    (Some(named), _) => Self::Named(named.name()?.text().to_string()),
                    (None, list) => Self::List(Box::new(Self::read(&list?.ty()?)?)),
                };
                Some(Self::NonNull(Box::new(inner)))
            }
        }
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::List(inner) => write!(f, "[{inner}]"),
            Self::Named(name) => f.write_str(name),
            Self::NonNull(inner) => write!(f, "{inner}!"),
        }
    }
}

fn read(definition: &Definition) -> Option<(String, Definite)> {
    match definition {
        Definition::EnumTypeDefinition(found) => {
            let words = found.enum_values_definition()?.enum_value_definitions();
            let words = words.map(|word| Some(word.enum_value()?.name()?.text().to_string()));
            let name = found.name()?.text().to_string();
            Some((name, Definite::Enum(words.collect::<Option<_>>()?)))
        }
        Definition::InputObjectTypeDefinition(found) => {
            let fields = found.input_fields_definition()?.input_value_definitions();
            let name = found.name()?.text().to_string();
            Some((name, Definite::Input(given(fields)?)))
        }
        Definition::ObjectTypeDefinition(found) => {
            let fields = found.fields_definition()?.field_definitions();
            let fields = fields.map(|field| {
                let arguments = match field.arguments_definition() {
                    Some(arguments) => given(arguments.input_value_definitions())?,
                    None => BTreeMap::new(),
                };
                let gives = Type::read(&field.ty()?)?;
                Some((field.name()?.text().to_string(), Field { arguments, gives }))
            });
            let name = found.name()?.text().to_string();
            Some((name, Definite::Object(fields.collect::<Option<_>>()?)))
        }
        Definition::ScalarTypeDefinition(found) => {
            Some((found.name()?.text().to_string(), Definite::Scalar))
        }
        _ => None,
    }
}

fn given(
    values: impl Iterator<Item = cst::InputValueDefinition>,
) -> Option<BTreeMap<String, Type>> {
    values
        .map(|value| Some((value.name()?.text().to_string(), Type::read(&value.ty()?)?)))
        .collect()
}

const TEXT: &str = include_str!("../schema.graphql");
const BUILT_IN: [&str; 5] = ["Boolean", "Float", "ID", "Int", "String"];
