# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Two frozen towers, trained apart, joined by heads that are trained on their features."""
