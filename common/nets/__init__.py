"""Small networks that a device uses and that device or cloud train.

`inputs`, `design`, `samples`, `words` and `calibration` need NumPy alone; `features`,
`network`, `losses`, `training` and `export` are torch code, imported where it is needed.
"""
