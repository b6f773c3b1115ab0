"""Chat templates in the manner of the supported families, and ones that cannot be compiled."""

# Header and end marks, stripped texts, a date with a fallback, BOS once (Llama-3's manner).
HEADERS = """{%- if strftime_now is defined %}{%- set today = strftime_now("%d %b %Y") %}{%- endif %}
{{- bos_token }}
{%- if messages[0]['role'] == 'system' %}
    {%- set rules = messages[0]['content'] | trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set rules = "" %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\nDate: " + today + "\\n\\n" }}{{- rules }}{{- "<|eot_id|>" }}
{%- for message in messages %}
    {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' + message['content'] | trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{%- endif %}
"""

# A default system prompt where none is given (Qwen2.5's manner).
DEFAULT_SYSTEM = """{%- if messages[0].role == 'system' %}
{{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}
{%- else %}
{{- '<|im_start|>system\\nBe brief and kind.<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
    {%- if message.role == 'user' or (message.role == 'system' and not loop.first) or message.role == 'assistant' %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}
"""

# The system prompt folded into the first user turn, strict alternation, a different closing mark.
FOLDED = """{{ bos_token }}{% if messages[0]['role'] == 'system' %}{% set rules = messages[0]['content'] + '\\n---\\n' %}{% set rest = messages[1:] %}
{%- else %}{% set rules = '' %}{% set rest = messages %}{% endif %}
{%- for message in rest %}
{%- if message['role'] == 'system' or (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('user and assistant must take turns') }}{% endif %}
{%- if loop.first %}{{ '<|start_header_id|>ask\\n' + rules + message['content'].rstrip() + '<|end_header_id|>' }}
{%- elif message['role'] == 'user' %}{{ '<|start_header_id|>ask\\n' + message['content'] | trim + '<|end_header_id|>' }}
{%- else %}{{ ' ' + message['content'] + '<|eot_id|>' }}{% endif %}
{%- endfor %}"""

# (template, part of the reason for its refusal)
REFUSED = (
    (
        "{% for m in messages %}{{ m.content | upper }}{% endfor %}",
        "drops or rewrites the text of a",
    ),
    ("{% for m in messages %}{{ m.content + m.content }}{% endfor %}", "repeats the text of a"),
    (
        "{% for m in messages | reverse %}<{{ m.role }}>{{ m.content }}{% endfor %}",
        "changes the order of turns",
    ),
    (
        "{% for m in messages %}<{{ m.role }}{{ loop.index }}>{{ m.content }}{% endfor %}",
        "in one conversation and",
    ),
    (
        "{% for m in messages %}<{{ m.role }}>{{ m.content | replace('\\n', ' ') }}{% endfor %}",
        "rewrites white space",
    ),
    (
        "{% for m in messages %}<{{ m.role }}>{{ m.content.split('</think>')[-1] }}{% endfor %}",
        "the compiled form",
    ),
    (
        "{% for m in messages %}{{ bos_token }}<{{ m.role }}>{{ m.content }}{% endfor %}",
        "appears again",
    ),
    ("{{ raise_exception('no chat here') }}", "no chat here"),
    ("{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor", "not valid Jinja"),
    (
        "{% if messages | length > 2 %}{{ raise_exception('too long') }}{% endif %}{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}",
        "other than two neighbouring roles",
    ),
)
