"""Renders a Hugging Face chat template as transformers does, but with a fixed date."""

import datetime
import json

import jinja2
import jinja2.ext
import jinja2.sandbox

from errors import ImportRefused


class TemplateRefusal(Exception):
    """The template itself refused the conversation."""


class TextDropped(TemplateRefusal):
    """The template rendered the conversation but left the text of a turn out."""


class _Generation(jinja2.ext.Extension):
    """{% generation %} marks assistant text for training; it changes nothing in the rendering."""

    tags = {"generation"}

    def parse(self, parser):
        next(parser.stream)
        return parser.parse_statements(["name:endgeneration"], drop_needle=True)


def _raise(message):
    raise TemplateRefusal(message)


class ChatTemplate:
    def __init__(self, text, special_tokens, date):
        self._special_tokens = dict(special_tokens)
        try:
            day = datetime.date.fromisoformat(date)
        except ValueError as error:
            raise ImportRefused(f"the chat date must be YYYY-MM-DD, got {date!r}") from error
        environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, jinja2.ext.loopcontrols]
        )
        environment.filters["tojson"] = lambda value, **options: json.dumps(
            value, ensure_ascii=False, **options
        )
        environment.globals["raise_exception"] = _raise
        environment.globals["strftime_now"] = lambda pattern: day.strftime(pattern)
        try:
            self._template = environment.from_string(text)
        except jinja2.TemplateError as error:
            raise ImportRefused(f"the chat template is not valid Jinja: {error}") from error

    def render(self, turns, **overrides):
        """turns: [(role, text)]. The text up to where the assistant's answer begins."""
        messages = [{"role": role, "content": text} for role, text in turns]
        try:
            return self._template.render(
                messages=messages,
                tools=None,
                documents=None,
                add_generation_prompt=True,
                **{**self._special_tokens, **overrides},
            )
        except TemplateRefusal:
            raise
        except (
            Exception
        ) as error:  # templates raise whatever Python does on a role they do not expect
            raise TemplateRefusal(f"{type(error).__name__}: {error}") from error
