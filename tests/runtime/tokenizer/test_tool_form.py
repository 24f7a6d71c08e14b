"""The form of calls, read off chat templates of several shapes."""

from __future__ import annotations

import pytest

from sgl_like.runtime.tokenizer.chat_template import JinjaTemplate
from sgl_like.runtime.tokenizer.tool_form import PLAIN, ToolForm, call_message, read_tool_form, result_message

TAGGED = """
{%- for m in messages -%}
<|im_start|>{{ 'user' if m.role == 'tool' else m.role }}
{% if m.role == 'tool' -%}
<tool_response>
{{ m.content }}
</tool_response>
{%- elif m.tool_calls -%}
{{ m.content }}
{%- for call in m.tool_calls -%}
<tool_call>
{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}
</tool_call>
{%- endfor -%}
{%- else -%}
{{ m.content }}
{%- endif -%}
<|im_end|>
{% endfor -%}
{%- if add_generation_prompt -%}
<|im_start|>assistant
{% endif -%}
"""
BARE = """
{%- for m in messages -%}
<|head|>{{ m.role }}<|/head|>
{%- if m.tool_calls -%}
{"name": "{{ m.tool_calls[0].function.name }}", "parameters": {{ m.tool_calls[0].function.arguments | tojson }}}
{%- elif m.role == 'tool' -%}
{{ {"output": m.content} | tojson }}
{%- else -%}
{{ m.content }}
{%- endif -%}
<|eot|>
{%- endfor -%}
{%- if add_generation_prompt -%}<|head|>assistant<|/head|>{%- endif -%}
"""
TEXT_ARGUMENTS = """
{%- for m in messages -%}
{%- if m.tool_calls -%}
[CALLS] {{ m.tool_calls[0].function.name + '[ARGS]' + m.tool_calls[0].function.arguments }}</s>
{%- elif m.role == 'tool' -%}
[RESULT]{{ m.content }}[/RESULT]
{%- elif m.role == 'user' -%}
[INST]{{ m.content }}[/INST]
{%- else -%}
{{ m.content }}</s>
{%- endif -%}
{%- endfor -%}
"""
NAME_LAST = BARE.replace(
    '{"name": "{{ m.tool_calls[0].function.name }}", "parameters": {{ m.tool_calls[0].function.arguments | tojson }}}',
    '{"parameters": {{ m.tool_calls[0].function.arguments | tojson }}, "name": "{{ m.tool_calls[0].function.name }}"}',
)
NO_TOOLS = (
    "{% for m in messages %}{% if m.role == 'tool' %}{{ raise_exception('no') }}{% endif %}"
    "<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
)
SILENT = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"


@pytest.mark.parametrize(
    ("source", "form", "trigger"),
    [
        (
            TAGGED,
            ToolForm(
                before='<tool_call>\n{"name": "',
                between='", "arguments": ',
                after_call="}\n</tool_call><|im_end|>\n<|im_start|>user\n<tool_response>\n",
                after_result="\n</tool_response><|im_end|>\n<|im_start|>assistant\n",
            ),
            "<tool_call>",
        ),
        (
            BARE,
            ToolForm(
                before='{"name": "',
                between='", "parameters": ',
                after_call='}<|eot|><|head|>tool<|/head|>{"output": "',
                after_result='"}<|eot|><|head|>assistant<|/head|>',
                quoted=True,
            ),
            '{"name": "',
        ),
        (
            TEXT_ARGUMENTS,
            ToolForm("[CALLS] ", "[ARGS]", "</s>[RESULT]", "[/RESULT]"),
            "[CALLS] ",
        ),
        (NAME_LAST, None, ""),
        (NO_TOOLS, None, ""),
        (SILENT, None, ""),
    ],
)
def test_templates(source: str, form: ToolForm | None, trigger: str) -> None:
    found = read_tool_form(JinjaTemplate(source).render)
    assert found == form
    assert found is None or found.trigger == trigger


@pytest.mark.parametrize("source", [TAGGED, BARE])
def test_what_the_form_writes_is_what_the_template_writes(source: str) -> None:
    template = JinjaTemplate(source)
    form = read_tool_form(template.render)
    assert form is not None
    result = 'say "20"\n'
    messages = [{"role": "user", "content": "Q"}]
    begun = template.render(messages, True)
    messages += [call_message("", "f", {"x": [1, "é"]}, "call1"), result_message(result, "f", "call1")]
    written = f'{form.before}f{form.between}{{"x": [1, "é"]}}{form.after_call}{form.result(result)}{form.after_result}'
    assert begun + written == template.render(messages, True)


def test_messages_go_on_after_a_call() -> None:
    template = JinjaTemplate(TAGGED)
    messages = [
        {"role": "user", "content": "Q"},
        call_message("", "f", '{"x": 1}', "call1"),
        result_message("1", "f", "call1"),
        {"role": "assistant", "content": "A"},
    ]
    assert template.role_affixes(messages, "user") == ("<|im_start|>user\n", "<|im_end|>\n")


def test_plain() -> None:
    assert PLAIN.trigger == "<tool_call>" and PLAIN.result('"x"') == '"x"'
