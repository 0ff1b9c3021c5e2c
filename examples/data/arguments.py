# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""What the arguments of the commands have in common."""

import argparse


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """
    Shows a description as it is written, and the default of each argument that does not tell it in words.

    Example:

    ```python
    >>> import argparse
    >>> from data.arguments import HelpFormatter

    >>> parser = argparse.ArgumentParser(prog="train.py", formatter_class=HelpFormatter)
    >>> _ = parser.add_argument("--seed", type=int, default=0, help="Of all random numbers.")
    >>> print(parser.format_help().splitlines()[-1])
      --seed SEED  Of all random numbers (default: 0).
    ```"""

    def _get_help_string(self, action: argparse.Action) -> str:
        default = action.default
        if action.nargs == 0 or default in (None, [], argparse.SUPPRESS) or "default" in action.help.lower():
            return action.help
        text = " ".join(map(str, default)) if isinstance(default, list | tuple) else str(default)
        return f"{action.help.rstrip('.')} (default: {text.replace('%', '%%')})."
