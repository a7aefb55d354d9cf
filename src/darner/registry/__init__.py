"""OCI registries, as far as preheating needs them: an image reference becomes the blobs that make up the image.

In flow a reference, platforms and credentials; out flow blob URLs with digests and sizes, the Authorization header that peers shall
use, and notes on what was left out. Refused are manifests that are too large, not JSON, of schema 1, or not of their digest.
"""
