# Short sides that training chooses from, with the long side at most 1333.
choice = dict(
    type='RandomChoiceResize',
    keep_ratio=True,
    scales=[(1333, 640), (1333, 672), (1333, 704), (1333, 736), (1333, 768), (1333, 800)],
)
# The ResNeSt authors' "3x with tricks": a wider range, then a crop of at least nine tenths a side.
crop = dict(type='RandomCrop', crop_type='relative_range', crop_size=(0.9, 0.9))
