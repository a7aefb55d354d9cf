"""One codec per message between protobuf (`dragonfly-api`) and core values, and the vortex frames.

Flows in: bytes or protobuf messages. Flows out: values of `core`, and back. A message that is passed on is copied, never
rebuilt, so that fields of newer peers survive (`carried` of the value).
"""
