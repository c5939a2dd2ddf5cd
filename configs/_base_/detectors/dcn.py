# Deformable 3x3 convolutions in stages 2 to 4, as in the ResNeSt authors' DCN results: modulated,
# two groups of offsets.
dcn = dict(dcn=dict(type='DCNv2', deform_groups=2), stage_with_dcn=(False, True, True, True))
