from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('channels_integration', '0006_waiting_of_a_thread'),
    ]

    operations = [
        migrations.AddField(
            model_name='inboundevent',
            name='is_outsider',
            field=models.BooleanField(db_default=False, default=False),
        ),
    ]
