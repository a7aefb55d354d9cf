"""Who may ask."""

from typing import Annotated

from fastapi import Depends

from darner.access import Principal, require

Asker = Annotated[Principal, Depends(require("retention"))]
