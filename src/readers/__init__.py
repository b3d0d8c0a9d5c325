"""Readers for what people have: lists, corpora and pairs into the files of docs/intp-schema.md."""
